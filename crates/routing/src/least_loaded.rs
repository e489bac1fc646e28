use crate::draw::Draw;
use crate::look::look;
use crate::notes::{Notes, Verdict};
use crate::policy::{Ask, Members, Policy};

/// Fewest requests: of a small pool the fewest of all, of a large one of a sample.
#[derive(Debug, Clone, Copy)]
pub struct LeastLoaded;

impl Policy for LeastLoaded {
    fn choose(&self, members: &dyn Members, ask: &Ask<'_>, notes: &mut Notes) -> Option<usize> {
        notes.begin("least loaded", "requests");
        let mut best: Option<(usize, f32)> = None;
        look(members, &mut Draw::new(ask.turn), |member, load| {
            let depth = load.depth();
            match best {
                Some((_, least)) if least <= depth => notes.add(member, depth, Verdict::Worse),
                _ => {
                    if let Some((worse, depth)) = best.replace((member, depth)) {
                        notes.add(worse, depth, Verdict::Worse);
                    }
                }
            }
        });
        let (member, depth) = best?;
        notes.add(member, depth, Verdict::Chosen);
        Some(member)
    }
}

#[cfg(test)]
mod tests;
