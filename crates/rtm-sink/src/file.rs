/// Writes one JSON document a line.
#[derive(Debug)]
pub struct FileSink;
