use super::*;
use crate::testing::Given;

fn policy(members: usize) -> Affinity {
    let names: Vec<String> = (0..members).map(|member| format!("gpu-{member}")).collect();
    Affinity::new(names.iter().map(String::as_str), 125)
}

fn ask(session: u64) -> Ask<'static> {
    Ask {
        turn: session.wrapping_mul(77),
        session: Some(session_of(&session.to_le_bytes())),
        ..Ask::default()
    }
}

fn choose(policy: &Affinity, given: &Given, session: u64) -> usize {
    let mut notes = Notes::default();
    let chosen = policy.choose(given, &ask(session), &mut notes);
    chosen.expect("somebody")
}

#[test]
fn sessions_are_spread_and_each_stays() {
    let (policy, given) = (policy(10), Given::in_flight(&[0; 10]));
    let mut counts = [0; 10];
    for session in 0..10_000 {
        let chosen = choose(&policy, &given, session);
        assert_eq!(chosen, choose(&policy, &given, session));
        counts[chosen] += 1;
    }
    // One point a member: 21 probes leave the fullest near the mean.
    let fullest = counts.iter().max().expect("ten");
    assert!(*fullest < 1350, "{counts:?}");
}

#[test]
fn who_leaves_moves_only_its_own_sessions() {
    let (policy, given) = (policy(20), Given::in_flight(&[0; 20]));
    let without = given.clone().without(&[7]);
    for session in 0..2000 {
        let before = choose(&policy, &given, session);
        let after = choose(&policy, &without, session);
        assert!(before == after || before == 7, "session {session}");
        assert_ne!(after, 7);
    }
    let fewer = Affinity::new((0..19).map(|member| NAMES[member]), 125);
    let more = Affinity::new(NAMES.into_iter(), 125);
    let [few, many] = [19, 20].map(|count| Given::in_flight(&vec![0; count]));
    for session in 0..2000 {
        let before = choose(&fewer, &few, session);
        let after = choose(&more, &many, session);
        assert!(before == after || after == 19, "session {session}");
    }
}

const NAMES: [&str; 20] = [
    "a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l", "m", "n", "o", "p", "q", "r", "s",
    "t",
];

/// One session that sends without end does not pile up on one member.
#[test]
fn an_overloaded_member_is_passed_over() {
    let policy = policy(10);
    let mut given = Given::in_flight(&[0; 10]);
    for _ in 0..400 {
        let chosen = choose(&policy, &given, 1);
        given.loads[chosen].in_flight += 1;
    }
    let busiest = given.loads.iter().map(|load| load.in_flight).max();
    assert!(
        busiest <= Some(52),
        "1.25 times the mean of 40, and one more: {busiest:?}"
    );
}

#[test]
fn without_a_session_load_decides() {
    let given = Given::in_flight(&[9, 0]);
    let mut notes = Notes::default();
    let chosen = policy(2).choose(&given, &Ask::default(), &mut notes);
    assert_eq!(chosen, Some(1));
    let nobody = Given::in_flight(&[0; 2]).without(&[0, 1]);
    assert_eq!(policy(2).choose(&nobody, &ask(1), &mut notes), None);
}

proptest::proptest! {
    /// Whatever is down and however busy: somebody usable is chosen if there is anybody.
    #[test]
    fn somebody_usable_is_chosen_if_there_is_anybody(
        loads in proptest::collection::vec(0_u32..50, 1..60),
        down in proptest::collection::vec(0_usize..60, 0..60),
        session: u64,
    ) {
        let count = loads.len();
        let given = Given::in_flight(&loads).without(&down);
        let mut notes = Notes::default();
        let chosen = policy(count).choose(&given, &ask(session), &mut notes);
        match chosen {
            Some(member) => assert!(member < count && !down.contains(&member)),
            None => assert!((0..count).all(|member| down.contains(&member))),
        }
    }
}
