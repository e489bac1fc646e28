use super::*;

fn nodes() -> Vec<Node> {
    vec![Node {
        name: "n".to_owned(),
        cpu_milli: 64_000,
        memory_mib: 1_000,
        gpus: 8,
        model: "A10".to_owned(),
        ..Node::default()
    }]
}

fn pod(name: &str, gpus: u8, created: f64, deleted: f64) -> Pod {
    Pod {
        name: name.to_owned(),
        request: Request {
            cpu_milli: 1_000,
            gpus,
            gpu_milli: 1_000,
            ..Request::default()
        },
        qos: Default::default(),
        created_s: Some(created),
        deleted_s: Some(deleted),
    }
}

#[test]
fn who_finds_no_room_waits_until_somebody_leaves_and_holds_up_nobody_else() {
    let pods = [
        pod("a", 6, 0.0, 100.0),
        // Waits for `a`; runs 100 s from then on.
        pod("b", 8, 10.0, 110.0),
        pod("c", 2, 20.0, 30.0),
        // After `b`, though there is room while `a` has left and `b` has come.
        pod("d", 1, 150.0, 160.0),
        pod("end", 0, 400.0, 401.0),
    ];
    let churn = Churn::trace(&nodes(), &pods, 1).unwrap();
    let stay = churn.run(churn.policy("bestfit").unwrap());
    assert_eq!((stay.arrived, stay.placed, stay.dropped), (5, 5, 0));
    // b: 90 s, d: 50 s, the others none.
    assert!((stay.wait_mean_s - 28.0).abs() < 1e-6, "{stay:?}");
    assert!((stay.wait_large_mean_s - 90.0).abs() < 1e-6, "{stay:?}");
    // 6 × 100 + 2 × 10 + 8 × 100 + 1 × 10 GPU seconds of 8 × 400.
    assert!(
        (stay.allocated_pct - 100.0 * 1_430.0 / 3_200.0).abs() < 1e-6,
        "{stay:?}"
    );
}

#[test]
fn drawn_arrivals_load_the_cluster_as_asked_and_are_the_same_for_every_policy() {
    let pods = [pod("a", 1, 0.0, 3_000.0), pod("b", 2, 0.0, 1_000.0)];
    let churn = Churn::poisson(&nodes(), &pods, 0.3, 30.0, 5).unwrap();
    let [first, second] =
        ["bestfit", "kapok"].map(|policy| churn.run(churn.policy(policy).unwrap()));
    assert!((first.allocated_pct - 30.0).abs() < 3.0, "{first:?}");
    assert_eq!(first.arrived, second.arrived);
    assert_eq!(first, churn.run(churn.policy("bestfit").unwrap()));
}

#[test]
fn a_list_without_moments_has_no_arrivals() {
    let mut timeless = pod("a", 1, 0.0, 1.0);
    (timeless.created_s, timeless.deleted_s) = (None, None);
    let pods = [timeless];
    assert_eq!(
        Churn::trace(&nodes(), &pods, 1).err(),
        Some(Error::NoArrivals)
    );
    assert_eq!(
        Churn::poisson(&nodes(), &pods, 0.9, 1.0, 1).err(),
        Some(Error::NoArrivals)
    );
    // More arrivals than anybody waits for.
    let brief = [pod("a", 1, 0.0, 1e-6)];
    assert_eq!(
        Churn::poisson(&nodes(), &brief, 0.9, 100.0, 1).err(),
        Some(Error::NoArrivals)
    );
}
