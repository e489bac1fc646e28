//! What a user sees of the real binary, by the words of the user: one file per concern.

#![expect(
    clippy::panic,
    clippy::print_stdout,
    reason = "a test binary: what helpers of tests do is done in tests"
)]

mod admission;
mod bad_input;
mod bad_openai;
mod broken_model;
mod change;
mod cli;
mod clients;
mod discovery;
mod doors;
mod engines;
mod ensembles;
mod faults;
mod fidelity;
mod idle;
mod jobs;
mod keys;
mod laws;
mod ledger;
mod lifecycle;
mod limits;
mod managed;
mod native;
mod readme;
mod relay;
mod rescue;
mod routes;
mod sdk;
mod streams;
mod telemetry;
mod threads;
mod through;
mod tritonserver;
