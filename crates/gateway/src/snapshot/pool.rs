use std::sync::Arc;

use protocol::resource::{RoutePolicy, RouteSpec};
use routing::{Policy, PowerOfTwo, RoundRobin};

use super::group::Turns;
use crate::upstream::Upstream;

/// Upstreams of which any may answer.
#[derive(Debug)]
pub(crate) struct Pool {
    pub(crate) members: Vec<Arc<Upstream>>,
    /// The same members, by what a request must not mix.
    cells: Vec<Cell>,
}

/// Members of one colour, in the node's own region or outside.
#[derive(Debug)]
pub(crate) struct Cell {
    colour: Option<String>,
    home: bool,
    pub(crate) members: Vec<Arc<Upstream>>,
    pub(crate) policy: Box<dyn Policy>,
    pub(crate) turns: Turns,
}

impl Pool {
    /// `region` is the node's. An upstream that names none is as near as the node's own.
    pub(crate) fn new(
        members: Vec<Arc<Upstream>>,
        region: Option<&str>,
        route: &RouteSpec,
    ) -> Self {
        let mut alike: Vec<(Option<String>, bool, Vec<Arc<Upstream>>)> = Vec::new();
        for member in &members {
            let spec = &member.spec;
            let near = spec.region.is_none() || spec.region.as_deref() == region;
            let home = region.is_none() || near;
            match alike
                .iter_mut()
                .find(|cell| cell.1 == home && cell.0 == spec.colour)
            {
                Some(cell) => cell.2.push(Arc::clone(member)),
                None => alike.push((spec.colour.clone(), home, vec![Arc::clone(member)])),
            }
        }
        let cell = |(colour, home, members)| Cell {
            colour,
            home,
            members,
            policy: policy(route),
            turns: Turns::default(),
        };
        let cells = alike.into_iter().map(cell).collect();
        Self { members, cells }
    }

    /// Those of a colour: in the node's region, and outside.
    pub(crate) fn cells(&self, colour: Option<&[u8]>) -> [Option<&Cell>; 2] {
        [true, false].map(|home| {
            let same = |cell: &&Cell| {
                cell.home == home && cell.colour.as_deref().map(str::as_bytes) == colour
            };
            self.cells.iter().find(same)
        })
    }
}

fn policy(route: &RouteSpec) -> Box<dyn Policy> {
    match route.policy {
        RoutePolicy::RoundRobin => Box::new(RoundRobin),
        _ => Box::new(PowerOfTwo),
    }
}
