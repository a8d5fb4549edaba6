//! Whose certificates are believed, where it is not for this machine to say.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::time_provider::TimeProvider;
use rustls::{ClientConfig, RootCertStore};
use upgrade_core::ports::Clock;

/// The time by which certificates have to be valid.
struct Now(Arc<dyn Clock>);

impl fmt::Debug for Now {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Now")
    }
}

impl TimeProvider for Now {
    fn current_time(&self) -> Option<UnixTime> {
        let seconds = u64::try_from(self.0.now().as_second()).ok()?;
        Some(UnixTime::since_unix_epoch(Duration::from_secs(seconds)))
    }
}

/// Trusts the authorities in `ca` (PEM) and no others.
///
/// # Errors
/// A sentence that says what is wrong with `ca`.
pub(super) fn config(ca: &[u8], clock: Arc<dyn Clock>) -> Result<ClientConfig, String> {
    let mut roots = RootCertStore::empty();
    for authority in CertificateDer::pem_slice_iter(ca) {
        let authority = authority.map_err(|error| format!("caFile is not PEM: {error}"))?;
        roots.add(authority).map_err(|error| format!("caFile has a certificate that cannot be read: {error}"))?;
    }
    if roots.is_empty() {
        return Err("caFile has no certificate".to_owned());
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let versions =
        ClientConfig::builder_with_details(provider, Arc::new(Now(clock))).with_safe_default_protocol_versions();
    let builder = versions.map_err(|error| format!("caFile cannot be used: {error}"))?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

/// For connections without TLS.
///
/// # Errors
/// As [`config`].
pub(super) fn trust_nobody() -> Result<ClientConfig, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = builder.map_err(|error| error.to_string())?;
    Ok(builder.with_root_certificates(RootCertStore::empty()).with_no_client_auth())
}
