//! Trust in a certificate authority of one repository's own.
//!
//! libgit2 knows only certificate authorities of the whole process, so the certificate it shows is checked here. The TLS
//! handshake has proven by then that the server holds the certificate's key; libgit2's own verdict is not needed on top.

use std::sync::Arc;

use jiff::Timestamp;
use rustls::RootCertStore;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};

/// Whether `certificate` (DER) is valid for `host` at `now`, and issued below one of the authorities in `ca` (PEM).
///
/// libgit2 shows the server's own certificate only, so its direct issuer must be in `ca`: for a server with intermediate
/// certificates, those too.
///
/// # Errors
/// A sentence that says what does not hold.
pub(super) fn check(ca: &[u8], certificate: &[u8], host: &str, now: Timestamp) -> Result<(), String> {
    let mut roots = RootCertStore::empty();
    for authority in CertificateDer::pem_slice_iter(ca) {
        let authority = authority.map_err(|error| format!("caFile is not PEM: {error}"))?;
        roots.add(authority).map_err(|error| format!("caFile has a certificate that cannot be read: {error}"))?;
    }
    if roots.is_empty() {
        return Err("caFile has no certificate".to_owned());
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider)
        .build()
        .map_err(|error| format!("caFile cannot be used: {error}"))?;
    let name = ServerName::try_from(host.trim_matches(['[', ']'])).map_err(|error| format!("host name: {error}"))?;
    let seconds = u64::try_from(now.as_second()).unwrap_or_default();
    let now = UnixTime::since_unix_epoch(std::time::Duration::from_secs(seconds));
    verifier
        .verify_server_cert(&CertificateDer::from(certificate), &[], &name, &[], now)
        .map(|_| ())
        .map_err(|error| format!("its certificate does not stand up to caFile: {error}"))
}
