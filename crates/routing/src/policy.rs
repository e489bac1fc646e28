use std::fmt;

use crate::draw::Draw;
use crate::load::Load;
use crate::notes::Notes;
use crate::prefix::Digest;

/// How many members are drawn before all are gone through to find one that can be used: with half of them down, two in
/// a thousand decisions come to that.
const DRAWS_MAX: usize = 9;

/// Members that are alike to whoever asks: one of them is to be chosen.
pub trait Members {
    fn count(&self) -> usize;

    /// Whether it can be given this request now.
    fn usable(&self, member: usize) -> bool;

    fn load(&self, member: usize) -> Load;
}

/// What a policy may know of a request.
#[derive(Debug, Clone, Copy, Default)]
pub struct Ask<'a> {
    /// Requests so far; where chance is wanted, its seed.
    pub turn: u64,
    /// Equal for requests that should meet the same member.
    pub session: Option<u64>,
    pub prompt: Option<&'a Digest>,
    pub now_ms: u32,
}

/// A way to choose. It may keep what it knows of members between requests, never anything about a request.
pub trait Policy: fmt::Debug + Send + Sync {
    /// Nobody if no member is usable. Notes say how it was decided.
    fn choose(&self, members: &dyn Members, ask: &Ask<'_>, notes: &mut Notes) -> Option<usize>;
}

/// A usable member by chance, other than `not`. Every usable one is as likely as any other, except when hardly any is.
pub(crate) fn sample(members: &dyn Members, draw: &mut Draw, not: Option<usize>) -> Option<usize> {
    let count = members.count();
    let fits = |member: usize| Some(member) != not && members.usable(member);
    if count == 0 {
        return None;
    }
    for _ in 0..DRAWS_MAX {
        let member = draw.below(count);
        if fits(member) {
            return Some(member);
        }
    }
    let start = draw.below(count);
    (start..count).chain(0..start).find(|member| fits(*member))
}
