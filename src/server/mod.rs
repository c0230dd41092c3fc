//! An HTTP/1 server that slow, greedy and broken clients cannot tie up, and that drains.
//!
//! * `serve` — accepting connections, serving each, and the end
//! * `stream` — a connection that nobody can hold by not reading, and whose last answer is read
//! * `limits` — what a client may take

mod limits;
mod serve;
mod stream;

pub use limits::Limits;
pub use serve::{Peer, serve, serve_within};
