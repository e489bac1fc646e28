//! Answers kept for requests that come again: one bounded store per process, and one run for equal requests in flight.
//!
//! ```text
//! find ──► Found
//!     ├──► Follow (an equal request runs: its answer is ours; if it fails or leaves, one of us runs instead)
//!     └──► Lead ──► keep ──► Found for others, until newer answers need the room or the model is gone
//! ```

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use protocol::Tensor;
use sha2::{Digest, Sha256};
use tokio::sync::watch;

use crate::call::Call;
use crate::request::Fitted;

pub(crate) type Key = [u8; 32];
type Outputs = Arc<Vec<Tensor>>;

/// Bytes that an answer costs beside its data: names, shapes, its places in the tables.
const ENTRY_BYTES: usize = 512;

/// The store; one per process.
#[derive(Debug)]
pub(crate) struct ResponseCache {
    bytes_max: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    next_generation: u64,
    next_use: u64,
    bytes: usize,
    kept: HashMap<Key, Kept>,
    /// By last use, the oldest first.
    used: BTreeMap<u64, Key>,
    running: HashMap<Key, watch::Receiver<Option<Outputs>>>,
}

#[derive(Debug)]
struct Kept {
    generation: u64,
    outputs: Outputs,
    bytes: usize,
    used: u64,
}

/// One loaded model's part of the store; gone with the model, so that a swap never answers with the old one's.
#[derive(Debug)]
pub(crate) struct Member {
    cache: Arc<ResponseCache>,
    generation: u64,
}

/// Names requests for one member; on any thread.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Hasher {
    generation: u64,
}

pub(crate) enum Find<'a> {
    Found(Outputs),
    Follow(watch::Receiver<Option<Outputs>>),
    Lead(Leader<'a>),
}

/// Whoever runs for all that ask the same. Dropped without an answer, one of the others leads.
pub(crate) struct Leader<'a> {
    member: &'a Member,
    key: Key,
    answer: watch::Sender<Option<Outputs>>,
}

impl ResponseCache {
    /// None keeps nothing.
    pub(crate) fn new(bytes_max: usize) -> Option<Arc<Self>> {
        (bytes_max > 0).then(|| {
            Arc::new(Self {
                bytes_max,
                state: Mutex::default(),
            })
        })
    }

    pub(crate) fn member(self: &Arc<Self>) -> Member {
        let mut state = self.state.lock();
        state.next_generation += 1;
        Member {
            cache: Arc::clone(self),
            generation: state.next_generation,
        }
    }
}

impl Hasher {
    pub(crate) fn of(self, fitted: &Fitted) -> Key {
        self.key(&fitted.call, &fitted.classes)
    }

    /// Equal for requests that must have equal answers; `classes` as in `Fitted`.
    fn key(self, call: &Call, classes: &[Option<usize>]) -> Key {
        let mut hash = Sha256::new();
        hash.update(self.generation.to_le_bytes());
        let number = |hash: &mut Sha256, number: usize| hash.update((number as u64).to_le_bytes());
        for input in &call.inputs {
            // Every part's length goes before it: no two requests read alike.
            number(&mut hash, input.name.len());
            hash.update(&input.name);
            hash.update(input.dtype.name());
            number(&mut hash, input.shape.len());
            for size in &input.shape {
                number(&mut hash, *size);
            }
            number(&mut hash, input.data.len());
            hash.update(&input.data);
        }
        number(&mut hash, call.wanted.len());
        for index in &call.wanted {
            number(&mut hash, *index);
        }
        for classes in classes {
            number(&mut hash, classes.unwrap_or(0));
        }
        hash.finalize().into()
    }
}

impl Member {
    pub(crate) fn hasher(&self) -> Hasher {
        Hasher {
            generation: self.generation,
        }
    }

    pub(crate) fn find(&self, key: Key) -> Find<'_> {
        let mut state = self.cache.state.lock();
        let state = &mut *state;
        if let Some(kept) = state.kept.get_mut(&key) {
            state.next_use += 1;
            state.used.remove(&kept.used);
            kept.used = state.next_use;
            state.used.insert(kept.used, key);
            return Find::Found(Arc::clone(&kept.outputs));
        }
        if let Some(running) = state.running.get(&key) {
            return Find::Follow(running.clone());
        }
        let (answer, running) = watch::channel(None);
        state.running.insert(key, running);
        Find::Lead(Leader {
            member: self,
            key,
            answer,
        })
    }
}

impl Leader<'_> {
    /// Gives the answer to all that wait for it, and keeps it if it fits.
    pub(crate) fn keep(self, outputs: &[Tensor]) {
        let cache = &self.member.cache;
        // A copy: the answer may share a buffer with far more than itself.
        let copy = |output: &Tensor| Tensor {
            data: Bytes::copy_from_slice(&output.data),
            ..output.clone()
        };
        let outputs: Outputs = Arc::new(outputs.iter().map(copy).collect());
        let data: usize = outputs.iter().map(|output| output.data.len()).sum();
        let bytes = data.saturating_add(ENTRY_BYTES);
        if bytes <= cache.bytes_max {
            let mut state = cache.state.lock();
            while state.bytes + bytes > cache.bytes_max && state.drop_oldest() {}
            state.next_use += 1;
            let used = state.next_use;
            state.bytes += bytes;
            state.used.insert(used, self.key);
            let kept = Kept {
                generation: self.member.generation,
                outputs: Arc::clone(&outputs),
                bytes,
                used,
            };
            state.kept.insert(self.key, kept);
        }
        self.answer.send_replace(Some(outputs));
    }
}

impl Drop for Leader<'_> {
    fn drop(&mut self) {
        self.member.cache.state.lock().running.remove(&self.key);
    }
}

impl State {
    /// False when there is none.
    fn drop_oldest(&mut self) -> bool {
        let Some((_, key)) = self.used.pop_first() else {
            return false;
        };
        if let Some(kept) = self.kept.remove(&key) {
            self.bytes -= kept.bytes;
        }
        true
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        let mut state = self.cache.state.lock();
        let state = &mut *state;
        let mine = state
            .kept
            .extract_if(|_, kept| kept.generation == self.generation);
        for (_, kept) in mine {
            state.used.remove(&kept.used);
            state.bytes -= kept.bytes;
        }
    }
}

#[cfg(test)]
mod tests {
    use protocol::DataType;

    use super::*;

    fn answer(bytes: usize) -> Vec<Tensor> {
        let tensor = Tensor::new("y", DataType::Uint8, vec![bytes], vec![7; bytes].into());
        vec![tensor.expect("as many bytes")]
    }

    fn key(member: &Member, value: u8) -> Key {
        let input = Tensor::new("x", DataType::Uint8, vec![1], vec![value].into());
        let call = Call {
            inputs: vec![input.expect("one byte")],
            wanted: vec![0],
            ..Call::default()
        };
        member.hasher().key(&call, &[])
    }

    fn keep(member: &Member, value: u8, bytes: usize) {
        if let Find::Lead(leader) = member.find(key(member, value)) {
            leader.keep(&answer(bytes));
        }
    }

    fn has(member: &Member, value: u8) -> bool {
        matches!(member.find(key(member, value)), Find::Found(_))
    }

    #[test]
    fn the_least_recently_used_answers_make_room() {
        let cache = ResponseCache::new(3 * (ENTRY_BYTES + 100)).expect("on");
        let member = cache.member();
        for value in 0..3 {
            keep(&member, value, 100);
        }
        assert!(has(&member, 0));
        keep(&member, 3, 100);
        assert_eq!(
            [0, 1, 2, 3].map(|value| has(&member, value)),
            [true, false, true, true]
        );
        keep(&member, 9, 1 << 20);
        assert!(!has(&member, 9) && has(&member, 0));
        drop(member);
        let state = cache.state.lock();
        assert_eq!((state.bytes, state.kept.len(), state.used.len()), (0, 0, 0));
    }

    #[test]
    fn equal_requests_follow_one_leader_and_take_over_when_it_leaves() {
        let cache = ResponseCache::new(1 << 20).expect("on");
        let (member, other) = (cache.member(), cache.member());
        let Find::Lead(leader) = member.find(key(&member, 1)) else {
            unreachable!("nobody asked before");
        };
        let Find::Follow(mut follower) = member.find(key(&member, 1)) else {
            unreachable!("it runs");
        };
        assert!(matches!(other.find(key(&other, 1)), Find::Lead(_)));
        drop(leader);
        assert!(follower.has_changed().is_err());
        let Find::Lead(leader) = member.find(key(&member, 1)) else {
            unreachable!("the leader left");
        };
        let Find::Follow(next) = member.find(key(&member, 1)) else {
            unreachable!("it runs again");
        };
        follower = next;
        leader.keep(&answer(3));
        let seen = follower.borrow_and_update().as_deref().cloned();
        assert_eq!(seen, Some(answer(3)));
        assert!(has(&member, 1));
    }
}
