//! Requests divided by weight, exactly.

/// Whose turn it is: over each cycle of as many turns as the weights sum to, everybody has exactly its weight of them.
/// None if no weight is above 0.
pub fn share(turn: u64, weights: impl Iterator<Item = u32> + Clone) -> Option<usize> {
    let cycle: u64 = weights.clone().map(u64::from).sum();
    if cycle == 0 {
        return None;
    }
    let mut slot = spread(turn, cycle);
    for (index, weight) in weights.enumerate() {
        let weight = u64::from(weight);
        if slot < weight {
            return Some(index);
        }
        slot -= weight;
    }
    None
}

/// Visits every slot of a cycle once, neighbours far apart: with weights 9 and 1 the tenth does not wait for nine in a
/// row. The step is the one nearest above the golden section that shares no factor with the cycle.
fn spread(turn: u64, cycle: u64) -> u64 {
    let golden = u128::from(cycle) * 618 / 1000;
    let mut step = u64::try_from(golden).unwrap_or(1).max(1);
    while greatest_common_divisor(step, cycle) != 1 {
        step += 1;
    }
    let slot = u128::from(turn % cycle) * u128::from(step) % u128::from(cycle);
    u64::try_from(slot).unwrap_or(0)
}

fn greatest_common_divisor(mut left: u64, mut right: u64) -> u64 {
    while right != 0 {
        (left, right) = (right, left % right);
    }
    left
}

#[cfg(test)]
mod tests;
