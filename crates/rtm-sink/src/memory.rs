/// Keeps records in memory.
#[derive(Debug, Default, Clone)]
pub struct MemorySink;
