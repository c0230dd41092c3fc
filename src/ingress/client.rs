//! Whom a request is counted for.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use axum::http::HeaderMap;
use ipnet::IpNet;

/// The client of a request: the connection's other end, or, while that is a trusted proxy, whom it says
/// it speaks for.
///
/// `X-Forwarded-For` grows to the right, one hop each: it is read from there, and the first address that
/// is no trusted proxy counts. What stands left of it was written by the client and may say anything. What
/// is no address ends the search: the proxy that passed it on is the last one known. An IPv6 client counts
/// by its /64, which is what one customer has.
pub fn client(peer: IpAddr, headers: &HeaderMap, trusted: &[IpNet]) -> IpAddr {
    let mut client = peer.to_canonical();
    // Several headers are one list (RFC 9110, 5.3).
    let lines = headers.get_all("x-forwarded-for").iter().rev();
    let mut hops = lines.flat_map(|line| line.as_bytes().rsplit(|&byte| byte == b','));
    while trusted.iter().any(|net| net.contains(&client)) {
        let Some(hop) = hops.next().and_then(hop) else { break };
        client = hop;
    }
    match client {
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
        v4 => v4,
    }
}

/// One entry of the list. Some proxies add the port.
fn hop(bytes: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(bytes).ok()?.trim();
    let address = text.parse().or_else(|_| text.parse().map(|socket: SocketAddr| socket.ip()));
    address.ok().map(|address| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn of(peer: &str, lines: &[&[u8]]) -> String {
        let trusted: Vec<IpNet> = ["10.0.0.0/8", "fd00::/8"].iter().map(|net| net.parse().unwrap()).collect();
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append("x-forwarded-for", HeaderValue::from_bytes(line).unwrap());
        }
        client(peer.parse().unwrap(), &headers, &trusted).to_string()
    }

    #[test]
    fn a_stranger_is_not_believed() {
        assert_eq!(of("198.51.100.4", &[b"203.0.113.9"]), "198.51.100.4");
        assert_eq!(of("198.51.100.4", &[b"10.0.0.1"]), "198.51.100.4");
    }

    #[test]
    fn the_rightmost_address_that_is_no_trusted_proxy_counts() {
        assert_eq!(of("10.0.0.1", &[b"6.6.6.6, 203.0.113.9, 10.0.0.7"]), "203.0.113.9");
        assert_eq!(of("::ffff:10.0.0.1", &[b"203.0.113.9"]), "203.0.113.9");
        assert_eq!(of("fd00::1", &[b"::ffff:203.0.113.9"]), "203.0.113.9");
        assert_eq!(of("10.0.0.1", &[b"6.6.6.6", b"203.0.113.9", b"10.0.0.7"]), "203.0.113.9");
        assert_eq!(of("10.0.0.1", &[b"203.0.113.9:51234"]), "203.0.113.9");
        assert_eq!(of("10.0.0.1", &[b"[2001:db8:1:2::9]:51234"]), "2001:db8:1:2::");
    }

    #[test]
    fn where_nobody_else_is_named_the_last_proxy_counts() {
        assert_eq!(of("10.0.0.1", &[]), "10.0.0.1");
        assert_eq!(of("10.0.0.1", &[b"10.0.0.3, 10.0.0.2"]), "10.0.0.3");
        for garbage in [&b""[..], b",", b"unknown", b"_hidden", b"6.6.6.6,", b"6.6.6.6, \xff", b"999.0.0.1"] {
            assert_eq!(of("10.0.0.1", &[garbage]), "10.0.0.1", "{garbage:?}");
        }
        assert_eq!(of("10.0.0.1", &[b"6.6.6.6, x, 10.0.0.2"]), "10.0.0.2");
    }

    #[test]
    fn neighbours_of_one_ipv6_network_count_as_one() {
        assert_eq!(of("2001:db8:1:2:3:4:5:6", &[]), "2001:db8:1:2::");
        assert_eq!(of("2001:db8:1:2:ffff::", &[]), "2001:db8:1:2::");
        assert_eq!(of("2001:db8:1:3::1", &[]), "2001:db8:1:3::");
    }

    proptest! {
        #[test]
        fn no_header_makes_it_fail_and_nothing_left_of_a_stranger_counts(left in "[ -~]{0,40}") {
            let line = format!("{left}, 203.0.113.9, 10.0.0.2");
            prop_assert_eq!(of("10.0.0.1", &[line.as_bytes()]), "203.0.113.9");
            of("10.0.0.1", &[left.as_bytes()]);
        }
    }
}
