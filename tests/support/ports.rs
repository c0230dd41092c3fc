//! Ports for servers that are told where to listen before they are started.

use std::net::TcpListener;
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

/// Ports that no system gives to connections by itself: one that the system chose might be given to a connection
/// of somebody's before it is listened on.
const PORTS: Range<u16> = 12_000..32_000;

/// Ports of a block. The first one marks whose it is.
const BLOCK: u16 = 50;

/// What this process may hand out.
struct Blocks {
    /// Listened on to the end of the process.
    marks: Vec<TcpListener>,
    /// What is left of the last block.
    left: Range<u16>,
}

static BLOCKS: Mutex<Blocks> = Mutex::new(Blocks { marks: Vec::new(), left: 0..0 });

/// A port that nobody listens on, and another one at each call. No other test is given it, of this process or of
/// another that runs beside it: so a server may be started on it whenever the test likes, and again.
pub(crate) fn free_port() -> u16 {
    let mut blocks = BLOCKS.lock().unwrap_or_else(PoisonError::into_inner);
    loop {
        if let Some(port) = blocks.left.find(|port| listen(*port).is_some()) {
            return port;
        }
        let (mark, left) = claim();
        blocks.marks.push(mark);
        blocks.left = left;
    }
}

/// Makes a block ours.
fn claim() -> (TcpListener, Range<u16>) {
    let number = (PORTS.end - PORTS.start) / BLOCK;
    let first = fastrand::u16(..number);
    let mut blocks = (0..number).map(|next| PORTS.start + (first + next) % number * BLOCK);
    let claimed = blocks.find_map(|block| Some((listen(block)?, block + 1..block + BLOCK)));
    claimed.expect("a block of ports is free")
}

fn listen(port: u16) -> Option<TcpListener> {
    TcpListener::bind(("127.0.0.1", port)).ok()
}
