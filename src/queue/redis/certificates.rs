//! The certificates of a connection by TLS. Their files are read for every connection, so one that was
//! renewed is used from the next on.

use std::path::{Path, PathBuf};

use redis::{Client, ClientTlsConfig, ConnectionAddr, ConnectionInfo, IntoConnectionInfo, TlsCertificates};
use zeroize::Zeroizing;

const BEGIN: &[u8] = b"-----BEGIN CERTIFICATE-----";

const UNREADABLE: &str = "the certificates for Redis are not in PEM form";

/// Files in PEM form, as `redis-cli` takes them with `--cacert`, `--cert` and `--key`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsFiles {
    /// Who vouches for the server; without it, those whom the system trusts.
    pub ca: Option<PathBuf>,
    /// Our own certificate and its key, for a server that asks who we are.
    pub own: Option<(PathBuf, PathBuf)>,
}

/// What the files hold.
#[derive(Clone, Default, PartialEq, Eq)]
pub(super) struct Certificates {
    ca: Option<Vec<u8>>,
    own: Option<(Vec<u8>, Zeroizing<Vec<u8>>)>,
}

impl TlsFiles {
    /// Reads them. They are small, and local.
    pub(super) fn read(&self) -> Result<Certificates, String> {
        let read = |path: &Path| {
            std::fs::read(path)
                .map_err(|error| format!("{} cannot be read: {}", path.display(), error.kind()))
        };
        let ca = self.ca.as_deref().map(read).transpose()?;
        let own = match &self.own {
            Some((certificate, key)) => Some((read(certificate)?, Zeroizing::new(read(key)?))),
            None => None,
        };
        Ok(Certificates { ca, own })
    }

    /// Whether what they hold can be used.
    ///
    /// # Errors
    ///
    /// Why not, for people.
    pub fn check(&self) -> Result<(), String> {
        let host = "localhost".to_owned();
        let anywhere = ConnectionAddr::TcpTls { host, port: 1, insecure: false, tls_params: None };
        let info = anywhere.into_connection_info().map_err(|_| UNREADABLE.to_owned())?;
        self.read()?.put_into(info).map(|_| ())
    }
}

impl Certificates {
    /// The same address with these certificates, if it is one by TLS.
    pub(super) fn put_into(&self, info: ConnectionInfo) -> Result<ConnectionInfo, String> {
        if !matches!(info.addr(), ConnectionAddr::TcpTls { .. }) {
            return Ok(info);
        }
        // Of a file without any, the client would make a list that nobody is on.
        let certificates = self.ca.iter().chain(self.own.iter().map(|(certificate, _)| certificate));
        for held in certificates {
            if !held.windows(BEGIN.len()).any(|here| here == BEGIN) {
                return Err(UNREADABLE.to_owned());
            }
        }
        let client_tls = self.own.as_ref().map(|(certificate, key)| ClientTlsConfig {
            client_cert: certificate.clone(),
            client_key: key.to_vec(),
        });
        let certificates = TlsCertificates { client_tls, root_cert: self.ca.clone() };
        let client = Client::build_with_tls(info, certificates).map_err(|_| UNREADABLE.to_owned())?;
        Ok(client.get_connection_info().clone())
    }
}
