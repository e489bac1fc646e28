use std::time::Duration;

/// How somebody's stay in a place ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stay {
    /// It was done after so long.
    Done(Duration),
    /// It was given up after so long: what it came for takes longer.
    Cut(Duration),
    /// It says nothing of how long anybody needs.
    Unknown,
}

/// How long the latest held their places, and what follows for the next.
///
/// A place that is given to somebody who cannot finish in time is wasted on it, and while others wait it is they who pay.
/// So whoever has less time left than [`Holds::needed`] does not get one: the shortest time in which places do nearly
/// as much good as in any longer one, going by the share that is done within it and by what all take of it. Where all
/// need about the same, that is nearly the longest of them; where anything can happen, or short requests are mixed with
/// long, it is short, and nobody is turned away who might be lucky.
#[derive(Debug, Clone, Default)]
pub(crate) struct Holds {
    /// The latest, in no order.
    stays: Vec<(Duration, Ended)>,
    next: usize,
    /// Since `needed` was found.
    fresh: u32,
    needed: Duration,
}

/// In this order: of two of the same length the one that was done is known to need no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Ended {
    Done,
    Cut,
}

/// As many are remembered: two kibibytes.
const STAYS_MAX: usize = 64;

/// Before so many nothing is said.
const STAYS_MIN: usize = 16;

/// It is found anew after so many, for it takes some microseconds.
const FRESH: u32 = 8;

/// Of those who were done, the quickest so many say nothing alone: one lucky stay would look like the best of all.
const QUICKEST: usize = 6;

/// How much of the best use of places is good enough. What is left is the price for turning fewer away.
const GOOD_ENOUGH: f64 = 0.95;

impl Holds {
    pub(crate) fn note(&mut self, stay: Stay) {
        let stay = match stay {
            Stay::Done(held) => (held, Ended::Done),
            Stay::Cut(held) => (held, Ended::Cut),
            Stay::Unknown => return,
        };
        match self.stays.get_mut(self.next) {
            Some(oldest) => *oldest = stay,
            None => self.stays.push(stay),
        }
        self.next = (self.next + 1) % STAYS_MAX;
        self.fresh += 1;
        if self.fresh >= FRESH && self.stays.len() >= STAYS_MIN {
            self.fresh = 0;
            self.needed = needed(&mut self.stays.clone());
        }
    }

    /// How much time whoever gets a place should have left; nothing while too little is known.
    pub(crate) fn needed(&self) -> Duration {
        self.needed
    }
}

/// The product-limit estimate (Kaplan and Meier, 1958): who was cut counts among those who need longer, for as long as
/// it is known to.
fn needed(stays: &mut [(Duration, Ended)]) -> Duration {
    stays.sort_unstable();
    let longest = stays.last().map_or(Duration::ZERO, |(held, _)| *held);
    let mut uses = Vec::new();
    // The share that needs longer, and what one takes of a place until here on average.
    let (mut longer, mut taken, mut before) = (1.0, 0.0, Duration::ZERO);
    let mut done = 0;
    for (index, (held, ended)) in stays.iter().enumerate() {
        taken += longer * (*held - before).as_secs_f64();
        before = *held;
        if *ended == Ended::Done {
            let left = (stays.len() - index) as f64;
            longer *= (left - 1.0) / left;
            done += 1;
            if done > QUICKEST {
                uses.push((*held, (1.0 - longer) / taken.max(f64::MIN_POSITIVE)));
            }
        }
    }
    let best = uses.iter().map(|(_, good)| *good).fold(0.0, f64::max);
    let found = uses.iter().find(|(_, good)| *good >= GOOD_ENOUGH * best);
    match found {
        Some((held, _)) => *held,
        // Nearly all were cut: who comes next should have a good deal more time than they had.
        None => longest * 2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::ms;

    fn holds(stays: impl IntoIterator<Item = Stay>) -> Duration {
        let mut holds = Holds::default();
        stays.into_iter().for_each(|stay| holds.note(stay));
        holds.needed()
    }

    #[test]
    fn what_all_need_is_needed_and_what_few_need_is_not() {
        let done = |count: usize, held: u64| std::iter::repeat_n(Stay::Done(ms(held)), count);
        let cut = |count: usize, held: u64| std::iter::repeat_n(Stay::Cut(ms(held)), count);
        for (stays, expected) in [
            // Too little is known.
            (done(15, 100).collect::<Vec<_>>(), 0),
            (done(64, 100).collect(), 100),
            // One in eight needs a hundred times as long: the rest are not kept from their places for its sake.
            (done(56, 10).chain(done(8, 1000)).collect(), 10),
            // Nearly the same for all: nearly all of them.
            ((80..120).map(|held| Stay::Done(ms(held))).collect(), 117),
            // Those who were cut needed longer; that they were cut early makes nobody quick.
            (cut(32, 50).chain(done(32, 100)).collect(), 100),
            (cut(64, 50).collect(), 100),
            // What is not known to have been either is not counted.
            (
                done(16, 100)
                    .chain(std::iter::repeat_n(Stay::Unknown, 99))
                    .collect(),
                100,
            ),
            // The oldest are forgotten.
            (done(64, 1000).chain(done(64, 10)).collect(), 10),
        ] {
            assert_eq!(holds(stays.clone()), ms(expected), "{stays:?}");
        }
    }
}
