use std::collections::BTreeMap;

use crate::Ticket;

/// Holds answers back until all earlier ones have left (`preserve_ordering`). As large as what waits and runs.
#[derive(Debug, Default)]
pub(crate) struct Order(BTreeMap<Ticket, bool>);

impl Order {
    pub(crate) fn begin(&mut self, ticket: Ticket) {
        self.0.insert(ticket, false);
    }

    /// Its answer is there: what may leave now, in order.
    pub(crate) fn ready(&mut self, ticket: Ticket) -> Vec<Ticket> {
        if let Some(ready) = self.0.get_mut(&ticket) {
            *ready = true;
        }
        self.leaving()
    }

    /// It gets no answer that others would have to wait for: what may leave now, in order.
    pub(crate) fn forget(&mut self, ticket: Ticket) -> Vec<Ticket> {
        self.0.remove(&ticket);
        self.leaving()
    }

    fn leaving(&mut self) -> Vec<Ticket> {
        let mut leaving = Vec::new();
        while let Some(first) = self.0.first_entry() {
            if !first.get() {
                break;
            }
            leaving.push(*first.key());
            first.remove();
        }
        leaving
    }
}
