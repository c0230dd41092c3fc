//! The other end of the operator's listener: asks a running service whether it is ready.
//!
//! In a container there is neither a shell nor `curl` to do that.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::Duration;

/// The longest a connection, and then each part of the answer, may take; a little more than the service
/// gives itself.
const PATIENCE: Duration = Duration::from_secs(4);

/// Bytes of an answer that are read; a ready service needs far fewer.
const LONGEST_ANSWER: u64 = 4096;

/// Asks the service whose operator's listener is `listen` for `/readyz`.
///
/// # Errors
///
/// Why it is not ready, or that nobody answers, in a line for people.
pub fn ask(listen: SocketAddr) -> Result<(), String> {
    let answer = get(reachable(listen)).map_err(|error| format!("no answer from {listen}: {error}"))?;
    let (head, word) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    match head.split(' ').nth(1) {
        Some("200") => Ok(()),
        _ => Err(format!("not ready: {}", word.trim())),
    }
}

/// Who listens everywhere can be reached on loopback.
fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

fn get(address: SocketAddr) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    write!(stream, "GET /readyz HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.take(LONGEST_ANSWER).read_to_end(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_listens_everywhere_is_asked_on_loopback() {
        let asked = |listen: &str| reachable(listen.parse().unwrap()).to_string();
        assert_eq!(asked("0.0.0.0:9464"), "127.0.0.1:9464");
        assert_eq!(asked("[::]:9464"), "[::1]:9464");
        assert_eq!(asked("192.0.2.7:1"), "192.0.2.7:1");
    }

    #[test]
    fn nobody_there_is_not_ready() {
        let port = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap();
        assert!(ask(port).unwrap_err().starts_with("no answer from 127.0.0.1:"));
    }
}
