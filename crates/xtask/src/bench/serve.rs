//! The model server: `identity` beside other servers ([`identity`]), real models beside their engine alone ([`models`]).

mod eager;
pub(super) mod identity;
pub(super) mod models;
mod peers;
mod wire;
