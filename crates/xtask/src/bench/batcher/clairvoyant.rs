//! What no batcher can beat: the schedule of somebody who knows every arrival beforehand.

use std::collections::VecDeque;

/// One lane, and how long a batch takes on it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lane {
    pub(super) fixed: f64,
    pub(super) row: f64,
    pub(super) rows_max: usize,
}

/// By how many requests were given up (an index, counted from `given_up`): the earliest moment at which the lane can be
/// free with all before decided; infinite where a smaller number does as well.
#[derive(Debug, Clone, Default)]
struct Best {
    given_up: usize,
    free: Vec<f64>,
}

/// The least number of requests, of those that arrive at `arrivals` (ascending), of which the answer comes later than
/// `within` seconds, whatever is done. None but those in time cost the lane anything, and batches take their mean time.
///
/// All wait equally long, so the first come are the first due. So requests run in that order, whoever is given up stood
/// at the head of the line, and of two ways to the same request with as many given up the one that ends earlier is as
/// good in all that follows: dynamic programming over (requests decided, given up) finds the best schedule there is. Nobody
/// who is there and would be in time is left out of a batch: each row costs the same in this batch and in the next.
pub(super) fn late(arrivals: &[f64], within: f64, lane: Lane) -> usize {
    let mut ahead: VecDeque<Best> = vec![Best::default(); lane.rows_max + 1].into();
    ahead[0].free.push(0.0);
    let took: Vec<f64> = (1..=lane.rows_max)
        .map(|rows| lane.fixed + lane.row * rows as f64)
        .collect();
    for (index, arrival) in arrivals.iter().enumerate() {
        let Some(mut here) = ahead.pop_front() else {
            return 0;
        };
        ahead.push_back(Best::default());
        here.prune(*arrival);
        for (more, free) in here.free.iter().enumerate() {
            if free.is_infinite() {
                continue;
            }
            let given_up = here.given_up + more;
            ahead[0].offer(given_up + 1, *free);
            let due = arrival + within;
            let in_time = took.partition_point(|took| free + took <= due);
            if in_time > 0
                && arrivals
                    .get(index + in_time - 1)
                    .is_some_and(|last| last <= free)
            {
                // All that fit are there: the usual case in a burst, and not worth a loop.
                ahead[in_time - 1].offer(given_up, free + took[in_time - 1]);
                continue;
            }
            for (rows, last) in (1..=lane.rows_max).zip(&arrivals[index..]) {
                let end = free.max(*last) + took[rows - 1];
                if end > due {
                    // Larger ones end later still.
                    break;
                }
                let next = arrivals.get(index + rows).filter(|next| *next <= free);
                if next.is_none() || rows >= in_time {
                    ahead[rows - 1].offer(given_up, end);
                }
            }
        }
    }
    let mut end = ahead.pop_front().unwrap_or_default();
    end.prune(f64::INFINITY);
    end.given_up
}

impl Best {
    fn offer(&mut self, given_up: usize, free: f64) {
        if self.free.is_empty() {
            self.given_up = given_up;
        }
        while given_up < self.given_up {
            self.free.insert(0, f64::INFINITY);
            self.given_up -= 1;
        }
        let place = given_up - self.given_up;
        while self.free.len() <= place {
            self.free.push(f64::INFINITY);
        }
        self.free[place] = self.free[place].min(free);
    }

    /// Nothing starts before `next` arrives, and who gives up more must be free earlier for it.
    fn prune(&mut self, next: f64) {
        let mut least = f64::INFINITY;
        let mut kept = 0;
        for (place, free) in self.free.iter_mut().enumerate() {
            *free = free.max(if next.is_finite() { next } else { *free });
            if *free < least {
                least = *free;
                kept = place + 1;
            } else {
                *free = f64::INFINITY;
            }
        }
        self.free.truncate(kept);
        let unreachable = self.free.iter().take_while(|free| free.is_infinite());
        let unreachable = unreachable.count();
        self.free.drain(..unreachable);
        self.given_up += unreachable;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LANE: Lane = Lane {
        fixed: 2.0,
        row: 1.0,
        rows_max: 3,
    };

    #[test]
    fn the_best_schedule_is_found() {
        for (arrivals, within, expected) in [
            (&[][..], 3.0, 0),
            (&[0.0], 3.0, 0),
            (&[0.0], 2.9, 1),
            // Together, or one after the other.
            (&[0.0, 0.0], 4.0, 0),
            (&[0.0, 1.0], 5.0, 0),
            (&[0.0, 1.0], 4.0, 1),
            // The first batch waits for the third, or the fourth would be late.
            (&[0.0, 0.5, 1.0, 1.5], 7.5, 0),
            (&[0.0, 0.5, 1.0, 1.5], 6.0, 1),
            (&[0.0, 0.0, 0.0, 0.0], 5.0, 1),
            (&[0.0, 0.0, 0.0, 0.0, 9.0], 5.0, 1),
        ] {
            assert_eq!(late(arrivals, within, LANE), expected, "{arrivals:?}");
        }
    }

    /// Every way to divide the requests into batches, and to give up any of them.
    fn tried(arrivals: &[f64], (free, within): (f64, f64)) -> usize {
        let Some(first) = arrivals.first() else {
            return 0;
        };
        let mut least = 1 + tried(&arrivals[1..], (free, within));
        for set in 0..1_u32 << (arrivals.len() - 1) {
            let members = (1..arrivals.len()).filter(|index| set >> (index - 1) & 1 == 1);
            let members: Vec<usize> = members.collect();
            let rows = members.len() + 1;
            let last = members.last().map_or(*first, |last| arrivals[*last]);
            let end = free.max(last) + LANE.fixed + LANE.row * rows as f64;
            if rows > LANE.rows_max || end > first + within {
                continue;
            }
            let rest = (1..arrivals.len()).filter(|index| !members.contains(index));
            let rest: Vec<f64> = rest.map(|index| arrivals[index]).collect();
            least = least.min(tried(&rest, (end, within)));
        }
        least
    }

    #[test]
    fn no_schedule_is_better() {
        let mut draw = super::super::Draw(7);
        for _ in 0..200 {
            let mut arrivals: Vec<f64> = (0..6).map(|_| draw.unit() * 12.0).collect();
            arrivals.sort_by(f64::total_cmp);
            let within = 3.0 + draw.unit() * 5.0;
            assert_eq!(
                late(&arrivals, within, LANE),
                tried(&arrivals, (0.0, within)),
                "{arrivals:?} {within}"
            );
        }
    }
}
