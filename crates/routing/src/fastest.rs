use crate::draw::Draw;
use crate::look::look;
use crate::notes::{Notes, Verdict};
use crate::policy::{Ask, Members, Policy};

/// Least expected wait: of a small pool the least of all, of a large one of a sample.
///
/// Who was never seen is taken to be as quick as the quickest that was: it is tried, and as requests there count at
/// once, not by everybody.
#[derive(Debug, Clone, Copy)]
pub struct Fastest;

impl Policy for Fastest {
    fn choose(&self, members: &dyn Members, ask: &Ask<'_>, notes: &mut Notes) -> Option<usize> {
        notes.begin("least expected wait", "ms");
        let mut quickest = f32::INFINITY;
        let draw = Draw::new(ask.turn);
        look(members, &mut draw.clone(), |_, load| {
            quickest = quickest.min(load.latency_us.unwrap_or(f32::INFINITY));
        });
        // Nobody was seen: then only requests count.
        let unseen = if quickest.is_finite() {
            quickest
        } else {
            1000.0
        };
        let mut best: Option<(usize, f32)> = None;
        look(members, &mut draw.clone(), |member, load| {
            let latency = load.latency_us.unwrap_or(unseen);
            let wait_ms = latency * (load.depth() + 1.0) / 1000.0;
            match best {
                Some((_, least)) if least <= wait_ms => notes.add(member, wait_ms, Verdict::Worse),
                _ => {
                    if let Some((worse, wait_ms)) = best.replace((member, wait_ms)) {
                        notes.add(worse, wait_ms, Verdict::Worse);
                    }
                }
            }
        });
        let (member, wait_ms) = best?;
        notes.add(member, wait_ms, Verdict::Chosen);
        Some(member)
    }
}

#[cfg(test)]
mod tests;
