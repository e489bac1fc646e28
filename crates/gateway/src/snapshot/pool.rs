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
    /// The same members, as the node's own region sees them, then as each other region of theirs does.
    views: Vec<View>,
}

/// The members by what a request from a region must not mix.
#[derive(Debug)]
struct View {
    region: Option<String>,
    cells: Vec<Cell>,
}

/// Members of one colour, in one region or outside of it.
#[derive(Debug)]
pub(crate) struct Cell {
    colour: Option<String>,
    home: bool,
    pub(crate) members: Vec<Arc<Upstream>>,
    pub(crate) policy: Box<dyn Policy>,
    pub(crate) turns: Turns,
}

/// Colour, whether in the region, and who.
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
    pub(super) fn new(members: Vec<Arc<Upstream>>, route: &RouteSpec, around: &Around<'_>) -> Self {
        let mut regions = vec![around.region];
        for member in &members {
            let region = member.spec.region.as_deref();
            if region.is_some() && !regions.contains(&region) {
                regions.push(region);
            }
        }
        let views = regions
            .iter()
            .map(|region| View::of(*region, &members, route, around));
        Self {
            views: views.collect(),
            members,
        }
    }

    /// Those of a colour: in the region, which is the node's if nobody is in the one that was asked for, and outside.
    pub(crate) fn cells(&self, colour: Option<&[u8]>, region: Option<&[u8]>) -> [Option<&Cell>; 2] {
        let named = |view: &&View| view.region.as_deref().map(str::as_bytes) == region;
        let asked = region.and_then(|_| self.views.iter().find(named));
        let view = asked.or_else(|| self.views.first());
        [true, false].map(|home| {
            let same = |cell: &&Cell| {
                cell.home == home && cell.colour.as_deref().map(str::as_bytes) == colour
            };
            view?.cells.iter().find(same)
        })
    }
}

impl View {
    /// An upstream that names no region is near to all.
    fn of(
        region: Option<&str>,
        members: &[Arc<Upstream>],
        route: &RouteSpec,
        around: &Around<'_>,
    ) -> Self {
        let mut alike: Vec<Alike> = Vec::new();
        for member in members {
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
        Self {
            region: region.map(str::to_owned),
            cells: alike.into_iter().map(cell).collect(),
        }
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
