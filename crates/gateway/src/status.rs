use serde::Serialize;

/// What the node was told to be and how far that is in force, for operators. Whoever publishes resources says it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct ConfigStatus {
    /// Where it came from; none when everything came from flags.
    pub file: Option<String>,
    /// Of the snapshot that requests see.
    pub generation: u64,
    /// Why the file as it is now is not in force; what was before serves.
    pub refused: Option<String>,
    /// Fields of the Node that differ from what runs, and change with a restart or an upgrade only.
    pub needs_restart: Vec<String>,
    pub pools: Vec<PoolStatus>,
}

/// The servers of one template.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct PoolStatus {
    pub name: String,
    pub servers: usize,
    /// Why they are not known for now; the last ones that were known serve.
    pub error: Option<String>,
}
