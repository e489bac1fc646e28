use super::*;

fn results() -> Vec<Result<Outcome>> {
    let point = |allocated_pct| Point {
        allocated_pct,
        frag_ratio_pct: 12.5,
        frag_pct: 1.0,
    };
    let outcome = |allocated| Outcome {
        curve: Curve([(30, point(29.5)), (129, point(allocated))].into()),
        arrived: 10,
        placed: 9,
    };
    let result = |policy: &str, seed, allocated| Result {
        workload: "a <b>, \"c\"".to_owned(),
        policy: policy.to_owned(),
        seed,
        outcome: outcome(allocated),
    };
    vec![
        result("fgd", 42, 90.0),
        result("fgd", 43, 92.0),
        result("kapok", 42, 95.0),
    ]
}

#[test]
fn the_csv_has_the_columns_of_the_artifact() {
    let text = csv(&results());
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(
        lines[0],
        "metric,workload,policy,seed,30,60,80,90,95,100,110,120,130"
    );
    assert_eq!(lines.len(), 1 + 3 * 3);
    let workload = "\"a <b>, \"\"c\"\"\"";
    let flat = "29.5000,".repeat(8);
    assert_eq!(
        lines[1],
        format!("alloc_pct,{workload},06-FGD,42,{flat}90.0000")
    );
    assert!(lines[3].contains("07-kapok,42"));
    assert!(lines[9].starts_with("frag_amount_pct_of_capacity,"));
}

#[test]
fn the_page_shows_means_and_names_that_cannot_become_markup() {
    let page = page(&results());
    assert!(page.contains("a &lt;b&gt;, &quot;c&quot;") && !page.contains("<b>"));
    assert!(page.contains("<td>91.00</td>"), "{page}");
    assert_eq!(page.matches("<svg").count(), 3);
    assert_eq!(page.matches("<polyline").count(), 4);
    assert!(!page.contains("<script") && !page.contains("src="));
}
