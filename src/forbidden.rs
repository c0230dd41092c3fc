//! Addresses that are never dialled: link-local ones and those where clouds serve credentials.
//!
//! Loopback and private addresses are not among them: who writes the configuration owns the network
//! it names. A metadata service is different: nobody means to post there, and what it answers is worth
//! stealing.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use url::{Host, Url};

/// Whether `address`, or an IPv4 address wrapped in it, is link-local or a cloud's metadata service.
///
/// Unwrapped are IPv4-mapped and -compatible addresses, NAT64 (RFC 6052, RFC 8215), 6to4, Teredo and
/// ISATAP: on some networks each of them ends at the IPv4 address inside.
pub fn is_forbidden(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => forbidden_v4(address),
        IpAddr::V6(address) => forbidden_v6(address) || wrapped_v4(address).any(forbidden_v4),
    }
}

/// What clouds call their metadata services within their own networks: Google Cloud and AWS.
const METADATA_NAMES: [&str; 5] =
    ["metadata", "metadata.google.internal", "metadata.goog", "instance-data", "instance-data.ec2.internal"];

/// Whether the host of `url` is written as an address that [`is_forbidden`], or as the name of a metadata
/// service. Other names are not resolved here: that happens, and is checked, whenever they are dialled.
pub fn names_forbidden_address(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(address)) => is_forbidden(address.into()),
        Some(Host::Ipv6(address)) => is_forbidden(address.into()),
        Some(Host::Domain(name)) => {
            let name = name.trim_end_matches('.');
            // Only http and https URLs have their hosts told apart; of others an address is a name.
            name.parse().is_ok_and(|address| is_forbidden(IpAddr::V4(address)))
                || METADATA_NAMES.iter().any(|metadata| name.eq_ignore_ascii_case(metadata))
        }
        None => false,
    }
}

fn forbidden_v4(address: Ipv4Addr) -> bool {
    address.is_link_local()
        || matches!(
            address.octets(),
            // Alibaba Cloud, Oracle Cloud (classic), Azure's wire server.
            [100, 100, 100, 200] | [192, 0, 0, 192] | [168, 63, 129, 16]
        )
}

fn forbidden_v6(address: Ipv6Addr) -> bool {
    let segments = address.segments();
    let link_local = segments[0] & 0xffc0 == 0xfe80;
    // AWS keeps every instance service under one prefix: metadata, DNS, time, pod identity.
    let aws = segments[..2] == [0xfd00, 0x0ec2];
    // Google Cloud's fd20:ce::254 and Scaleway's fd00:42::42.
    let others =
        matches!(segments, [0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254] | [0xfd00, 0x42, 0, 0, 0, 0, 0, 0x42]);
    link_local || aws || others
}

/// Every IPv4 address that `address` may stand for.
fn wrapped_v4(address: Ipv6Addr) -> impl Iterator<Item = Ipv4Addr> {
    let s = address.segments();
    let joined = |high: u16, low: u16| Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low));
    let last = joined(s[6], s[7]);

    let mapped_or_compatible = s[..5] == [0; 5] && matches!(s[5], 0 | 0xffff);
    let translated = s[..4] == [0; 4] && s[4..6] == [0xffff, 0];
    let nat64 = s[..6] == [0x64, 0xff9b, 0, 0, 0, 0];
    let nat64_local = s[..3] == [0x64, 0xff9b, 1];
    let isatap = s[4] & 0xfdff == 0 && s[5] == 0x5efe;
    let at_the_end = mapped_or_compatible || translated || nat64 || nat64_local || isatap;

    // RFC 6052 with a /48 prefix keeps bits 64 to 71 zero, in the middle of the address.
    let around_the_gap = joined(s[3], (s[4] & 0xff) << 8 | s[5] >> 8);
    let six_to_four = s[0] == 0x2002;
    let teredo = s[..2] == [0x2001, 0];

    [
        at_the_end.then_some(last),
        nat64_local.then_some(around_the_gap),
        (six_to_four).then_some(joined(s[1], s[2])),
        // Teredo names its server plainly and its client with every bit turned over.
        teredo.then_some(joined(s[2], s[3])),
        teredo.then_some(Ipv4Addr::from_bits(!last.to_bits())),
    ]
    .into_iter()
    .flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn link_local_and_metadata_addresses_are_forbidden_in_every_wrapping() {
        for address in [
            "169.254.0.0",
            "169.254.169.254",
            "169.254.255.255",
            "169.254.170.2",
            "100.100.100.200",
            "192.0.0.192",
            "168.63.129.16",
            "fe80::1",
            "febf:ffff::1",
            "fd00:ec2::254",
            "fd00:ec2::23",
            "fd20:ce::254",
            "fd00:42::42",
            "::ffff:169.254.169.254",
            "::ffff:0:169.254.169.254",
            "::169.254.169.254",
            "64:ff9b::169.254.169.254",
            "64:ff9b::a9fe:a9fe",
            "64:ff9b::6464:64c8",
            "64:ff9b:1::169.254.169.254",
            "64:ff9b:1:a9fe:a9:fe00::",
            "2002:a9fe:a9fe::1",
            "2002:6464:64c8::",
            "2001:0:a9fe:a9fe::1",
            "2001:0:1:2:3:4:5601:5601",
            "2001:db8::5efe:169.254.169.254",
            "2001:db8::200:5efe:a9fe:a9fe",
        ] {
            assert!(is_forbidden(address.parse().unwrap()), "{address}");
        }
    }

    #[test]
    fn loopback_private_and_public_addresses_are_allowed() {
        for address in [
            "127.0.0.1",
            "10.0.0.1",
            "172.16.0.1",
            "192.168.1.1",
            "100.64.0.1",
            "100.100.100.199",
            "169.253.255.255",
            "169.255.0.0",
            "8.8.8.8",
            "0.0.0.0",
            "::1",
            "::",
            "fd00:ec3::254",
            "fd12:3456::1",
            "fec0::1",
            "fe7f::1",
            "2606:4700::1111",
            "::ffff:127.0.0.1",
            "64:ff9b::8.8.8.8",
            "2002:0808:0808::1",
            "2001:4860:4860::8888",
        ] {
            assert!(!is_forbidden(address.parse().unwrap()), "{address}");
        }
    }

    #[test]
    fn odd_spellings_of_a_forbidden_address_are_seen_through() {
        for url in [
            "http://169.254.169.254/latest/meta-data/",
            "http://169.254.169.254.:80/",
            "http://2852039166/",
            "http://0xa9fea9fe/",
            "http://0xa9.0xfe.43518/",
            "http://0251.0376.0251.0376/",
            "http://①⑥⑨.254.169.254/",
            "http://[::ffff:169.254.169.254]/",
            "http://[0:0:0:0:0:ffff:a9fe:a9fe]/",
            "http://[fe80::1]:8080/",
            "http://METADATA.google.internal./",
            "redis://169.254.1.2:6379",
            "redis://[fe80::1]:6379",
        ] {
            assert!(names_forbidden_address(&Url::parse(url).unwrap()), "{url}");
        }
        for url in [
            "http://127.0.0.1/",
            "http://[::1]/",
            "https://hooks.slack.com/",
            "http://localhost/",
            "https://metadata.example.com",
        ] {
            assert!(!names_forbidden_address(&Url::parse(url).unwrap()), "{url}");
        }
        assert!(Url::parse("http://[fe80::1%25eth0]/").is_err());
    }
}
