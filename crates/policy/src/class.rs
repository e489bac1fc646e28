use protocol::resource::Priority;

/// What is said about a request's class, and by whom.
#[derive(Debug, Clone, Copy, Default)]
pub struct Claim {
    /// By the request itself.
    pub asked: Option<Priority>,
    /// By the route it takes.
    pub route: Option<Priority>,
    /// By its key; None if no key is needed, which leaves nobody to keep below.
    pub key: Option<Priority>,
}

/// The class of a request. A caller may always step back; it may step forward up to its key's class, or its route's,
/// which is the operator's word about everything that goes there.
pub fn class(claim: Claim) -> Priority {
    let said = claim.route.or(claim.key).unwrap_or_default();
    let highest = said.max(claim.key.unwrap_or(Priority::Realtime));
    claim.asked.map_or(said, |asked| asked.min(highest))
}

#[cfg(test)]
mod tests {
    use Priority::{Bulk, Interactive, Realtime, Standard};

    use super::*;

    #[test]
    fn nobody_claims_more_than_its_key_and_route_allow() {
        for (asked, route, key, expected) in [
            (None, None, None, Standard),
            (Some(Realtime), None, None, Realtime),
            (Some(Bulk), None, None, Bulk),
            (None, None, Some(Interactive), Interactive),
            (Some(Realtime), None, Some(Interactive), Interactive),
            (Some(Bulk), None, Some(Interactive), Bulk),
            (Some(Interactive), None, Some(Standard), Standard),
            (None, Some(Realtime), Some(Bulk), Realtime),
            (Some(Realtime), Some(Realtime), Some(Bulk), Realtime),
            (None, Some(Bulk), Some(Interactive), Bulk),
            (
                Some(Interactive),
                Some(Bulk),
                Some(Interactive),
                Interactive,
            ),
            (Some(Realtime), Some(Bulk), Some(Interactive), Interactive),
        ] {
            let claim = Claim { asked, route, key };
            assert_eq!(class(claim), expected, "{claim:?}");
        }
    }
}
