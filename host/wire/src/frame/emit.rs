//! Frames as bytes.

use alloc::vec::Vec;

use super::{Ack, Fragment, Frame, MessageMode, RefusedDocument, code};
use crate::codec::put_block;
use crate::ids::{Ballot, DocumentId};
use crate::limits::{MAX_HEARD_BITMAP, MAX_SUITES};

impl Frame<'_> {
    /// Appends the frame.
    pub fn emit(&self, out: &mut Vec<u8>) {
        out.push(self.code());
        put_block(out, |out| self.emit_body(out));
    }

    fn code(&self) -> u8 {
        match self {
            Frame::Hello { .. } => code::HELLO,
            Frame::HelloReply { .. } => code::HELLO_REPLY,
            Frame::HelloDone { .. } => code::HELLO_DONE,
            Frame::Refused { .. } => code::REFUSED,
            Frame::Membership(_) => code::MEMBERSHIP,
            Frame::Summary { .. } => code::SUMMARY,
            Frame::Plans { .. } => code::PLANS,
            Frame::Heard { .. } => code::HEARD,
            Frame::Buckets { .. } => code::BUCKETS,
            Frame::Leaves { .. } => code::LEAVES,
            Frame::Want(_) => code::WANT,
            Frame::Record(_) => code::RECORD,
            Frame::SessionOpen { .. } => code::SESSION_OPEN,
            Frame::SessionAccept { .. } => code::SESSION_ACCEPT,
            Frame::SessionCookie { .. } => code::SESSION_COOKIE,
            Frame::Ping { .. } => code::PING,
            Frame::Pong { .. } => code::PONG,
            Frame::Ack(_) => code::ACK,
            Frame::Fragment(_) => code::FRAGMENT,
            Frame::Run(_) => code::RUN,
            Frame::Accepted(_) => code::ACCEPTED,
            Frame::CountAsked { .. } => code::COUNT_ASKED,
            Frame::Count { .. } => code::COUNT,
        }
    }

    fn emit_body(&self, out: &mut Vec<u8>) {
        match self {
            Frame::Hello { token, digest, record } => {
                out.extend_from_slice(&token.to_be_bytes());
                out.extend_from_slice(&digest.0);
                put_block(out, |out| out.extend_from_slice(record));
            }
            Frame::HelloReply { echo, token, digest, record } => {
                out.extend_from_slice(&echo.to_be_bytes());
                out.extend_from_slice(&token.to_be_bytes());
                out.extend_from_slice(&digest.0);
                put_block(out, |out| out.extend_from_slice(record));
            }
            Frame::HelloDone { echo } => out.extend_from_slice(&echo.to_be_bytes()),
            Frame::Refused { echo, code, others } => {
                out.extend_from_slice(&echo.to_be_bytes());
                out.push(*code);
                out.extend(others.then_some(1));
            }
            Frame::Membership(bytes) | Frame::Record(bytes) => out.extend_from_slice(bytes),
            Frame::Summary { digest, epoch, agreed, documents, refused } => {
                out.extend_from_slice(&digest.0);
                out.extend_from_slice(&epoch.to_be_bytes());
                out.extend_from_slice(&agreed.0);
                if *documents != <[DocumentId; 2]>::default() || refused.is_some() {
                    documents.iter().for_each(|document| emit_document(document, out));
                }
                if let Some(RefusedDocument { document, code }) = refused {
                    emit_document(document, out);
                    out.push(*code);
                }
            }
            Frame::Plans { in_force, above } => {
                [in_force, above].into_iter().for_each(|ballot| emit_ballot(*ballot, out));
            }
            Frame::Heard { agreed_by, contested, tables, documents } => {
                out.extend_from_slice(&agreed_by.unwrap_or_default().0);
                out.push(u8::from(*contested));
                for bitmap in [tables, documents] {
                    put_block(out, |out| {
                        out.extend_from_slice(&bitmap[..bitmap.len().min(MAX_HEARD_BITMAP)])
                    });
                }
            }
            Frame::Buckets { first, hashes } => {
                out.push(*first);
                hashes.iter().for_each(|hash| out.extend_from_slice(&hash.to_be_bytes()));
            }
            Frame::Leaves { bucket, leaves } => {
                out.push(*bucket);
                for (node, version, forgotten) in leaves {
                    out.extend_from_slice(&node.0);
                    out.extend_from_slice(&version.to_be_bytes());
                    out.push(u8::from(*forgotten));
                }
            }
            Frame::Want(nodes) => nodes.iter().for_each(|node| out.extend_from_slice(&node.0)),
            Frame::SessionOpen { number, session, cookie, suites, request } => {
                let suites = &suites[..suites.len().min(MAX_SUITES)];
                out.extend_from_slice(&number.to_be_bytes());
                out.extend_from_slice(&session.0.to_be_bytes());
                out.extend_from_slice(cookie);
                out.push(suites.len() as u8);
                out.extend_from_slice(suites);
                out.extend_from_slice(request);
            }
            Frame::SessionAccept { echo, answer } => {
                out.extend_from_slice(&echo.0.to_be_bytes());
                out.extend_from_slice(answer);
            }
            Frame::SessionCookie { echo, cookie } => {
                out.extend_from_slice(&echo.0.to_be_bytes());
                out.extend_from_slice(cookie);
            }
            Frame::Ping { token, padding } => {
                out.extend_from_slice(&token.to_be_bytes());
                out.resize(out.len() + usize::from(*padding), 0);
            }
            Frame::Pong { token } => out.extend_from_slice(&token.to_be_bytes()),
            Frame::Ack(ack) => emit_ack(ack, out),
            Frame::Fragment(fragment) => emit_fragment(fragment, out),
            Frame::Run(run) => {
                out.extend_from_slice(&run.stream.to_be_bytes());
                out.extend_from_slice(&[mode_code(run.mode), u8::from(run.redelivered)]);
                out.extend_from_slice(&run.first.0.to_be_bytes());
                out.extend_from_slice(&run.order.to_be_bytes());
                out.extend_from_slice(run.entries);
            }
            Frame::Accepted(accepted) => {
                out.extend_from_slice(&accepted.stream.to_be_bytes());
                out.extend_from_slice(&accepted.floor.0.to_be_bytes());
                out.extend_from_slice(&accepted.credit.to_be_bytes());
                out.extend_from_slice(&accepted.credit_in_all.to_be_bytes());
                out.extend_from_slice(accepted.bitmap);
            }
            Frame::CountAsked { seen } => out.extend_from_slice(&seen.to_be_bytes()),
            Frame::Count { seen, next } => {
                [seen, next].into_iter().for_each(|number| out.extend_from_slice(&number.to_be_bytes()));
            }
        }
    }
}

fn emit_ack(ack: &Ack, out: &mut Vec<u8>) {
    out.extend_from_slice(&ack.path.0.to_be_bytes());
    out.extend_from_slice(&ack.delay_us.to_be_bytes());
    out.extend_from_slice(&ack.ce.to_be_bytes());
    for (low, high) in &ack.ranges {
        out.extend_from_slice(&low.0.to_be_bytes());
        out.extend_from_slice(&high.0.to_be_bytes());
    }
}

fn emit_fragment(fragment: &Fragment<'_>, out: &mut Vec<u8>) {
    out.extend_from_slice(&fragment.message.0.to_be_bytes());
    out.extend_from_slice(&[mode_code(fragment.mode), u8::from(fragment.redelivered)]);
    out.extend_from_slice(&fragment.stream.to_be_bytes());
    out.extend_from_slice(&fragment.order.to_be_bytes());
    out.extend_from_slice(&fragment.total.to_be_bytes());
    out.extend_from_slice(&fragment.offset.to_be_bytes());
    out.extend_from_slice(fragment.payload);
}

/// A member that knows no documents, or has none, ends here.
fn emit_document(document: &DocumentId, out: &mut Vec<u8>) {
    out.extend_from_slice(&document.version.to_be_bytes());
    out.extend_from_slice(&document.digest.0);
}

/// Epoch 0 stands for none and ends it.
fn emit_ballot(ballot: Option<Ballot>, out: &mut Vec<u8>) {
    out.extend_from_slice(&ballot.map_or(0, |ballot| ballot.epoch).to_be_bytes());
    if let Some(Ballot { proposer, boot, .. }) = ballot {
        out.extend_from_slice(&proposer.0);
        out.extend_from_slice(&boot.0);
    }
}

pub(super) fn mode_code(mode: MessageMode) -> u8 {
    match mode {
        MessageMode::Unreliable => 0,
        MessageMode::Reliable => 1,
        MessageMode::Ordered => 2,
    }
}
