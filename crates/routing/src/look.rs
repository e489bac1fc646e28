use crate::draw::Draw;
use crate::load::Load;
use crate::policy::{Members, sample};

/// A pool no larger is looked at as a whole.
const WHOLE_MAX: usize = 32;

/// Of a larger one, as many are drawn: the least loaded of sixteen is among the best sixth of the pool nineteen times
/// out of twenty.
const DRAWN: usize = 16;

/// Calls back for usable members, in an order by chance, so that equals share the work: all of a small pool, some of a
/// large one, and anybody at all if hardly any can be used.
pub(crate) fn look(members: &dyn Members, draw: &mut Draw, mut each: impl FnMut(usize, Load)) {
    let count = members.count();
    if count == 0 {
        return;
    }
    if count <= WHOLE_MAX {
        let start = draw.below(count);
        for member in (start..count).chain(0..start) {
            if members.usable(member) {
                each(member, members.load(member));
            }
        }
        return;
    }
    let mut found = false;
    for _ in 0..DRAWN {
        let member = draw.below(count);
        if members.usable(member) {
            found = true;
            each(member, members.load(member));
        }
    }
    if !found && let Some(member) = sample(members, draw, None) {
        each(member, members.load(member));
    }
}

/// Requests at a usable member in the mean, of those looked at.
pub(crate) fn mean_depth(members: &dyn Members, draw: &mut Draw) -> f32 {
    let (mut sum, mut seen) = (0.0, 0.0);
    look(members, draw, |_, load| {
        sum += load.depth();
        seen += 1.0;
    });
    if seen > 0.0 { sum / seen } else { 0.0 }
}
