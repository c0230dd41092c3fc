//! Hosts that must never be dialled, whoever asks.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use url::{Host, Url};

/// Cloud metadata services outside the link-local ranges: Azure, Alibaba Cloud and Oracle Cloud.
const METADATA_V4: [Ipv4Addr; 3] =
    [Ipv4Addr::new(168, 63, 129, 16), Ipv4Addr::new(100, 100, 100, 200), Ipv4Addr::new(192, 0, 0, 192)];

/// Cloud metadata services by IPv6: AWS, Google Cloud and Scaleway.
const METADATA_V6: [Ipv6Addr; 3] = [
    Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254),
    Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254),
    Ipv6Addr::new(0xfd00, 0x42, 0, 0, 0, 0, 0, 0x42),
];

/// Cloud metadata services by name: Google Cloud and AWS.
const METADATA_NAMES: [&str; 5] =
    ["metadata", "metadata.google.internal", "metadata.goog", "instance-data", "instance-data.ec2.internal"];

/// Whether the host of `url` is a link-local address or a cloud's metadata service.
///
/// Such an address answers every process of the machine with its credentials, so no text is ever sent
/// there. Names are compared, not resolved. Loopback and private addresses are the operator's choice.
pub fn never_dialled(url: &Url) -> bool {
    match url.host() {
        None => false,
        Some(Host::Domain(name)) => {
            let name = name.trim_end_matches('.');
            // Only http and https URLs have their hosts told apart; of others an address is a name.
            name.parse().is_ok_and(|address| forbidden(IpAddr::V4(address)))
                || METADATA_NAMES.iter().any(|metadata| name.eq_ignore_ascii_case(metadata))
        }
        Some(Host::Ipv4(address)) => forbidden(IpAddr::V4(address)),
        Some(Host::Ipv6(address)) => forbidden(IpAddr::V6(address)),
    }
}

fn forbidden(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_link_local() || METADATA_V4.contains(&v4),
        IpAddr::V6(v6) => {
            v6.is_unicast_link_local()
                || METADATA_V6.contains(&v6)
                || embedded_v4(v6).is_some_and(|v4| forbidden(IpAddr::V4(v4)))
        }
    }
}

/// The IPv4 address that an IPv6 address leads to: mapped or compatible (RFC 4291), NAT64 (RFC 6052)
/// or 6to4 (RFC 3056).
fn embedded_v4(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let segments = address.segments();
    let v4 = |high: u16, low: u16| {
        let [a, b] = high.to_be_bytes();
        let [c, d] = low.to_be_bytes();
        Ipv4Addr::new(a, b, c, d)
    };
    match segments {
        [0, 0, 0, 0, 0, 0 | 0xffff, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] => Some(v4(high, low)),
        [0x2002, high, low, ..] => Some(v4(high, low)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(url: &str) -> bool {
        never_dialled(&Url::parse(url).unwrap())
    }

    #[test]
    fn link_local_and_metadata_addresses_are_never_dialled_in_any_spelling() {
        for bad in [
            "http://169.254.169.254/latest",
            "http://169.254.1.2",
            "http://0xa9fea9fe/",
            "http://2852039166/",
            "http://[fe80::1]/",
            "http://[::ffff:169.254.169.254]/",
            "http://[::169.254.169.254]/",
            "http://[64:ff9b::a9fe:a9fe]/",
            "http://[2002:a9fe:a9fe::1]/",
            "http://[fd00:ec2::254]/",
            "http://100.100.100.200/",
            "http://168.63.129.16/",
            "http://metadata.google.internal/",
            "redis://169.254.1.2:6379",
            "redis://[fe80::1]:6379",
            "http://METADATA.google.internal./",
        ] {
            assert!(of(bad), "{bad}");
        }
    }

    #[test]
    fn loopback_private_and_public_addresses_may_be() {
        for good in [
            "http://127.0.0.1:8080",
            "http://10.1.2.3",
            "http://192.168.0.1",
            "http://[::1]",
            "http://[fd00::1]",
            "https://api.twilio.com",
            "https://metadata.example.com",
        ] {
            assert!(!of(good), "{good}");
        }
    }
}
