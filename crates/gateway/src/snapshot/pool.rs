use std::sync::Arc;

use protocol::resource::{RoutePolicy, RouteSpec};
use routing::{
    Affinity, Cheapest, Fastest, Index, LeastLoaded, Policy, PowerOfTwo, Prefix, RoundRobin,
};

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

/// Colour, whether in the node's region, and who.
type Alike = (Option<String>, bool, Vec<Arc<Upstream>>);

/// What a pool takes from its snapshot.
#[derive(Debug)]
pub(super) struct Around<'a> {
    /// The node's.
    pub(super) region: Option<&'a str>,
    /// Present if any route looks at prompts.
    pub(super) index: Option<&'a Arc<Index>>,
    pub(super) generation: u64,
}

impl Pool {
    /// An upstream that names no region is as near as the node's own.
    pub(super) fn new(members: Vec<Arc<Upstream>>, route: &RouteSpec, around: &Around<'_>) -> Self {
        let region = around.region;
        let mut alike: Vec<Alike> = Vec::new();
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
        let cell = |(colour, home, members): Alike| Cell {
            colour,
            home,
            policy: policy(route, &members, around),
            members,
            turns: Turns::since(around.generation),
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

fn policy(route: &RouteSpec, members: &[Arc<Upstream>], around: &Around<'_>) -> Box<dyn Policy> {
    match route.policy {
        RoutePolicy::P2c => Box::new(PowerOfTwo),
        RoutePolicy::RoundRobin => Box::new(RoundRobin),
        RoutePolicy::LeastLoaded => Box::new(LeastLoaded),
        RoutePolicy::Fastest => Box::new(Fastest),
        RoutePolicy::Cheapest => {
            let costs: Vec<u32> = members.iter().map(|member| member.spec.cost).collect();
            Box::new(Cheapest::new(&costs, route.cheapest.wait_ms_max))
        }
        RoutePolicy::Affinity => {
            let names = members.iter().map(|member| &*member.name);
            Box::new(Affinity::new(names, route.affinity.load_percent_max))
        }
        RoutePolicy::Prefix => match around.index {
            Some(index) => {
                let ids = members.iter().map(|member| member.live.id);
                Box::new(Prefix::new(Arc::clone(index), ids.collect()))
            }
            None => Box::new(PowerOfTwo),
        },
    }
}
