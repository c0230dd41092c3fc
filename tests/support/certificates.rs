//! Certificates of a test's own.

use std::fs;
use std::path::{Path, PathBuf};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};

/// Somebody who vouches for servers and clients.
pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

/// Two files: a certificate and its key.
pub(crate) struct Pair {
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "Authority of a test");
        let key = KeyPair::generate().expect("a key");
        Self(CertifiedIssuer::self_signed(params, key).expect("a certificate"))
    }

    /// Writes its certificate.
    pub(crate) fn write(&self, file: PathBuf) -> PathBuf {
        fs::write(&file, self.0.pem()).expect("the folder is ours");
        file
    }

    /// Writes a certificate for `name`, a host or an address, and its key: `{stem}.crt`, `{stem}.key`.
    pub(crate) fn issue(&self, folder: &Path, stem: &str, name: &str) -> Pair {
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new(vec![name.to_owned()]).expect("a name");
        let certificate = params.signed_by(&key, &self.0).expect("a certificate");
        let pair =
            Pair { certificate: folder.join(format!("{stem}.crt")), key: folder.join(format!("{stem}.key")) };
        fs::write(&pair.certificate, certificate.pem()).expect("the folder is ours");
        fs::write(&pair.key, key.serialize_pem()).expect("the folder is ours");
        pair
    }
}
