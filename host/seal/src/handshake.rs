//! The handshake of a session.

use core::fmt;

use hkdf::Hkdf;
use overlan_core::crypto::{Attempt, SessionKeys};
use overlan_wire::SessionId;
use overlan_wire::frame::{SessionAnswer, SessionRequest};
use overlan_wire::limits::VERSION;
use sha2::Sha256;
use snow::{Builder, HandshakeState};
use zeroize::Zeroizing;

use crate::cipher::{Cipher, Suite};
use crate::identity::Identity;
use crate::noise::Primitives;

/// The pattern KK (the Noise specification, section 7.5): both ends know the other's static key, from its signed
/// table entry, and prove that they hold their own.
///
/// ```text
/// -> e, es, ss        request
/// <- e, ee, se        answer
/// ```
const PATTERN: &str = "Noise_KK_25519_ChaChaPoly_SHA256";

/// A handshake that this node has opened, with its ephemeral key.
pub struct Handshake {
    state: Box<HandshakeState>,
    suites: Vec<u8>,
}

impl Handshake {
    /// Opens one.
    pub(crate) fn open(
        identity: &Identity,
        salt: &[u8; 32],
        attempt: &Attempt<'_>,
        peer: &[u8; 32],
        random: [u8; 32],
    ) -> Option<(Handshake, SessionRequest)> {
        let mut state = build(identity, &prologue(salt, attempt), peer, random, true)?;
        let mut request: SessionRequest = [0; 48];
        let len = state.write_message(&[], &mut request).ok()?;
        debug_assert_eq!(len, request.len());
        Some((Handshake { state: Box::new(state), suites: attempt.suites.to_vec() }, request))
    }

    /// Ends it.
    pub(crate) fn finish(&mut self, answer: &SessionAnswer) -> Option<(SessionId, SessionKeys<Cipher>)> {
        if self.state.is_handshake_finished() {
            return None;
        }
        let mut payload = [0; 57];
        let len = self.state.read_message(answer, &mut payload).ok()?;
        let (session, code) = payload[..len].split_first_chunk::<8>()?;
        let suite = Suite::from_code(*code.first()?).filter(|_| self.suites.contains(&code[0]))?;
        let keys = split(&mut self.state, suite, true);
        Some((SessionId(u64::from_be_bytes(*session)), keys))
    }
}

/// Answers one.
pub(crate) fn accept(
    identity: &Identity,
    (salt, liked): (&[u8; 32], &[u8]),
    attempt: &Attempt<'_>,
    peer: &[u8; 32],
    request: &SessionRequest,
    session: SessionId,
    random: [u8; 32],
) -> Option<(SessionAnswer, SessionKeys<Cipher>)> {
    let code = *liked.iter().find(|code| attempt.suites.contains(code))?;
    let suite = Suite::from_code(code)?;
    let mut state = build(identity, &prologue(salt, attempt), peer, random, false)?;
    state.read_message(request, &mut [0; 48]).ok()?;
    let mut payload = [0; 9];
    payload[..8].copy_from_slice(&session.0.to_be_bytes());
    payload[8] = code;
    let mut answer: SessionAnswer = [0; 57];
    let len = state.write_message(&payload, &mut answer).ok()?;
    debug_assert_eq!(len, answer.len());
    Some((answer, split(&mut state, suite, false)))
}

fn build(
    identity: &Identity,
    prologue: &[u8],
    peer: &[u8; 32],
    random: [u8; 32],
    initiator: bool,
) -> Option<HandshakeState> {
    let primitives = Primitives { random: Zeroizing::new(random) };
    let params = PATTERN.parse().expect("a pattern that snow knows");
    let exchange = identity.exchange_secret();
    let builder = Builder::with_resolver(params, Box::new(primitives))
        .prologue(prologue)
        .and_then(|builder| builder.local_private_key(&exchange[..]))
        .and_then(|builder| builder.remote_public_key(peer))
        .ok()?;
    if initiator { builder.build_initiator() } else { builder.build_responder() }.ok()
}

/// All that the two must agree on.
fn prologue(salt: &[u8; 32], attempt: &Attempt<'_>) -> Vec<u8> {
    let mut out = b"overlan session v1".to_vec();
    out.push(VERSION);
    out.extend_from_slice(salt);
    out.extend_from_slice(&attempt.key.0.to_be_bytes());
    for (node, boot) in [attempt.initiator, attempt.responder] {
        out.extend_from_slice(&node.0);
        out.extend_from_slice(&boot.0);
    }
    out.extend_from_slice(&attempt.number.to_be_bytes());
    out.extend_from_slice(&attempt.session.0.to_be_bytes());
    out.extend_from_slice(attempt.suites);
    out
}

/// One key and nonce mask per direction, of the handshake's two secrets.
fn split(state: &mut HandshakeState, suite: Suite, initiator: bool) -> SessionKeys<Cipher> {
    let (first, second) = state.dangerously_get_raw_split();
    let (first, second) = (Zeroizing::new(first), Zeroizing::new(second));
    let (send, receive) = if initiator { (first, second) } else { (second, first) };
    SessionKeys { send: direction(&send, suite), receive: direction(&receive, suite) }
}

fn direction(secret: &[u8; 32], suite: Suite) -> Cipher {
    let hkdf = Hkdf::<Sha256>::from_prk(secret).expect("a secret of a hash's 32 bytes");
    let mut out = Zeroizing::new([0; 12 + 32]);
    hkdf.expand_multi_info(&[b"overlan data v1", &[suite as u8]], &mut out[..12 + suite.key_len()])
        .expect("RFC 5869 allows 8,160 bytes");
    let (mask, key) = out.split_first_chunk::<12>().expect("12 of 44 bytes");
    Cipher::new(suite, &key[..suite.key_len()], *mask)
}

impl fmt::Debug for Handshake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Handshake")
    }
}
