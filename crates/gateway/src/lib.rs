//! Listen, authenticate, admit, route, relay.
//!
//! Reading order: [`server`] (what the gateway needs from whoever runs models in this process), then the snapshot, the
//! pick, the doors and the relay.
//! Never here: running models, starting processes, reading files. `kapok` adapts those to the traits in [`server`].

pub mod server;
