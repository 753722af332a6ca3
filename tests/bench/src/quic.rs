//! quinn: a stream, unreliable datagrams (quinn packs several into a packet), and round trips of a datagram.
//!
//! TLS 1.3 with AES-128-GCM by ring, windows and socket buffers wide enough not to be what limits.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use anyhow::Context as _;
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{Connection, Endpoint, EndpointConfig, MtuDiscoveryConfig, TransportConfig, VarInt};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};

use crate::worker::{Counts, Options, ready};

const CHUNK: usize = 1 << 20;
const NAME: &str = "receiver";

/// AES-128-GCM alone.
fn provider() -> Arc<CryptoProvider> {
    let mut provider = rustls::crypto::ring::default_provider();
    provider.cipher_suites.retain(|suite| suite.suite() == rustls::CipherSuite::TLS13_AES_128_GCM_SHA256);
    Arc::new(provider)
}

fn transport(options: &Options) -> anyhow::Result<Arc<TransportConfig>> {
    let mut transport = TransportConfig::default();
    let window = VarInt::from_u32(16 << 20);
    transport.stream_receive_window(window).receive_window(window).send_window(16 << 20);
    transport.datagram_receive_buffer_size(Some(16 << 20)).datagram_send_buffer_size(4 << 20);
    if let Some(mtu) = options.optional("mtu")? {
        let mut discovery = MtuDiscoveryConfig::default();
        discovery.upper_bound(mtu);
        transport.mtu_discovery_config(Some(discovery));
    }
    Ok(Arc::new(transport))
}

fn endpoint(
    local: SocketAddr,
    server: Option<quinn::ServerConfig>,
    options: &Options,
) -> anyhow::Result<Endpoint> {
    let mut config = EndpointConfig::default();
    if let Some(mtu) = options.optional("mtu")? {
        config.max_udp_payload_size(mtu)?;
    }
    let socket = crate::udp::socket(local)?.into();
    Ok(Endpoint::new(config, server, socket, Arc::new(quinn::TokioRuntime))?)
}

fn certificate_file(options: &Options) -> anyhow::Result<PathBuf> {
    Ok(options.folder()?.join("quic.der"))
}

/// Takes one connection and counts or echoes, as `mode=` says.
pub(crate) fn receive(options: &Options) -> anyhow::Result<()> {
    crate::runtime()?.block_on(async {
        let certified = rcgen::generate_simple_self_signed([NAME.to_owned()])?;
        let key = PrivatePkcs8KeyDer::from(certified.signing_key.serialize_der());
        let tls = rustls::ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_no_client_auth()
            .with_single_cert(vec![certified.cert.der().clone()], key.into())?;
        let mut server = quinn::ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls)?));
        server.transport_config(transport(options)?);
        let endpoint = endpoint(options.peer()?, Some(server), options)?;
        std::fs::write(certificate_file(options)?, certified.cert.der())?;
        let counts = Counts::new();
        ready(&counts)?;
        let connection = endpoint.accept().await.context("the endpoint closed")?.await?;
        match options.value::<String>("mode")?.as_str() {
            "stream" => {
                let mut stream = connection.accept_uni().await?;
                while let Some(chunk) = stream.read_chunk(CHUNK, true).await? {
                    counts.add(0, chunk.bytes.len() as u64);
                }
                Ok(())
            }
            "datagram" => loop {
                counts.message(&connection.read_datagram().await?);
            },
            _ => loop {
                let datagram = connection.read_datagram().await?;
                connection.send_datagram(datagram)?;
            },
        }
    })
}

/// `mode=stream`, `mode=datagram` or `mode=roundtrip`.
pub(crate) fn send(options: &Options) -> anyhow::Result<()> {
    crate::runtime()?.block_on(async {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from(std::fs::read(certificate_file(options)?)?))?;
        let tls = rustls::ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let mut client = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls)?));
        client.transport_config(transport(options)?);
        let local = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);
        let endpoint = endpoint(local, None, options)?;
        let connection = endpoint.connect_with(client, options.peer()?, NAME)?.await?;
        let counts = Counts::new();
        ready(&counts)?;
        match options.value::<String>("mode")?.as_str() {
            "stream" => {
                let mut stream = connection.open_uni().await?;
                let chunk = vec![0x5a; CHUNK];
                loop {
                    stream.write_all(&chunk).await?;
                }
            }
            "datagram" => send_datagrams(&connection, options.size()?).await,
            _ => {
                let payload = vec![0; options.size()?];
                loop {
                    let sent = Instant::now();
                    connection.send_datagram_wait(payload.clone().into()).await?;
                    connection.read_datagram().await?;
                    counts.latency(sent.elapsed());
                }
            }
        }
    })
}

async fn send_datagrams(connection: &Connection, size: usize) -> anyhow::Result<()> {
    let mut payload = vec![0; size];
    for sequence in 0_u64.. {
        payload[..8].copy_from_slice(&sequence.to_be_bytes());
        connection.send_datagram_wait(payload.clone().into()).await?;
    }
    Ok(())
}
