//! Every state that one device can be in, and what leads from one to the next.

use std::collections::HashMap;
use std::sync::LazyLock;

use super::{EIGHT, FOUR, Family, Shape};
use crate::hash::Fast;

/// States are numbers; 0 is a device that holds no instance. Which instances there are and where is all that a state says.
#[derive(Debug)]
pub struct Automaton {
    family: &'static Family,
    /// A bit for each placement that is taken.
    states: Vec<u32>,
    occupied: Vec<Occupied>,
    placements: Vec<(u8, u8)>,
    /// By state and placement; [`NONE`] where that is not possible.
    after: Vec<u16>,
    before: Vec<u16>,
    /// A bit for each shape that still fits.
    room: Vec<u8>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Occupied {
    /// A bit for each slice.
    pub memory: u8,
    pub compute: u8,
    pub media: bool,
}

const NONE: u16 = u16::MAX;

/// Tables that never change; the first use of a family computes its own.
static AUTOMATA: [LazyLock<Automaton>; 2] = [
    LazyLock::new(|| Automaton::new(&EIGHT)),
    LazyLock::new(|| Automaton::new(&FOUR)),
];

impl Occupied {
    fn with(self, shape: &Shape, start: u8, family: &Family) -> Option<Self> {
        let memory = slices(shape, start);
        let compute = self.compute + shape.compute;
        let free = self.memory & memory == 0 && compute <= family.compute;
        let media = !(self.media && shape.media);
        (free && media).then_some(Self {
            memory: self.memory | memory,
            compute,
            media: self.media || shape.media,
        })
    }
}

pub(super) fn slices(shape: &Shape, start: u8) -> u8 {
    let run = u8::MAX >> (8 - shape.memory);
    run << start
}

impl Automaton {
    pub fn of(family: &'static Family) -> &'static Self {
        &AUTOMATA[family.index]
    }

    fn new(family: &'static Family) -> Self {
        let shapes = (0_u8..).zip(family.shapes);
        let placements: Vec<(u8, u8)> = shapes
            .flat_map(|(at, shape)| shape.starts.iter().map(move |start| (at, *start)))
            .collect();
        let mut automaton = Self {
            family,
            states: vec![0],
            occupied: vec![Occupied::default()],
            placements,
            after: Vec::new(),
            before: Vec::new(),
            room: Vec::new(),
        };
        let mut numbers: HashMap<u32, u16, Fast> = HashMap::default();
        numbers.insert(0, 0);
        let mut state = 0;
        while state < automaton.states.len() {
            automaton.expand(state, &mut numbers);
            state += 1;
        }
        automaton.before = vec![NONE; automaton.after.len()];
        let count = automaton.placements.len();
        for (at, next) in automaton.after.iter().enumerate() {
            if *next != NONE {
                let number = u16::try_from(at / count).unwrap_or(NONE);
                automaton.before[usize::from(*next) * count + at % count] = number;
            }
        }
        automaton
    }

    fn expand(&mut self, state: usize, numbers: &mut HashMap<u32, u16, Fast>) {
        let mut room = 0;
        for (bit, (shape, start)) in self.placements.clone().into_iter().enumerate() {
            let kind = &self.family.shapes[usize::from(shape)];
            let occupied = self.occupied[state].with(kind, start, self.family);
            let next = occupied.map_or(NONE, |occupied| {
                room |= 1 << shape;
                let taken = self.states[state] | 1 << bit;
                let new = u16::try_from(self.states.len()).unwrap_or(NONE);
                let number = *numbers.entry(taken).or_insert(new);
                if number == new {
                    self.states.push(taken);
                    self.occupied.push(occupied);
                }
                number
            });
            self.after.push(next);
        }
        self.room.push(room);
    }

    pub fn family(&self) -> &'static Family {
        self.family
    }

    /// How many states there are.
    pub fn states(&self) -> u16 {
        u16::try_from(self.states.len()).unwrap_or(NONE)
    }

    pub fn occupied(&self, state: u16) -> Occupied {
        self.occupied[usize::from(state)]
    }

    /// Shape and start of each instance.
    pub fn instances(&self, state: u16) -> impl Iterator<Item = (u8, u8)> {
        let taken = self.states[usize::from(state)];
        let placements = self.placements.iter().enumerate();
        placements
            .filter(move |(bit, _)| taken >> bit & 1 == 1)
            .map(|(_, placement)| *placement)
    }

    pub fn fits(&self, state: u16, shape: u8) -> bool {
        self.room[usize::from(state)] >> shape & 1 == 1
    }

    /// Where an instance could start, and the state then.
    pub fn starts(&self, state: u16, shape: u8) -> impl Iterator<Item = (u8, u16)> {
        let row = usize::from(state) * self.placements.len();
        let placements = self.placements.iter().enumerate();
        placements
            .filter(move |(_, placement)| placement.0 == shape)
            .map(move |(at, (_, start))| (*start, self.after[row + at]))
            .filter(|(_, next)| *next != NONE)
    }

    /// The state with one instance more.
    pub fn with(&self, state: u16, shape: u8, start: u8) -> Option<u16> {
        self.step(&self.after, state, shape, start)
    }

    /// The state with one instance less.
    pub fn without(&self, state: u16, shape: u8, start: u8) -> Option<u16> {
        self.step(&self.before, state, shape, start)
    }

    fn step(&self, table: &[u16], state: u16, shape: u8, start: u8) -> Option<u16> {
        let at = self
            .placements
            .iter()
            .position(|known| *known == (shape, start))?;
        let next = *table.get(usize::from(state) * self.placements.len() + at)?;
        (next != NONE).then_some(next)
    }
}
