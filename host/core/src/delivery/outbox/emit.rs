//! What a stream sends for the first time.

use alloc::vec::Vec;

use overlan_wire::frame::{FRAGMENT_HEADER, RUN_ENTRY, RUN_HEADER, RunWriter};
use overlan_wire::{Fragment, Frame, MessageId, MessageMode};

use super::stream::{Open, OutStream, Queued};
use super::{MIN_FRAGMENT, Space};
use crate::delivery::Content;

/// What a stream sent for the first time.
pub(super) struct Sent {
    pub(super) content: Option<Content>,
    /// Cost of unreliable messages that are gone with it.
    pub(super) forgotten: usize,
}

impl OutStream {
    pub(super) fn emit(&mut self, id: u16, space: Space, credit: u64, out: &mut Vec<u8>) -> Option<Sent> {
        if self.in_pieces() {
            return self.emit_piece(id, space.room, out);
        }
        let whole = RUN_HEADER + RUN_ENTRY + self.queue.front()?.payload.len();
        if whole <= space.room {
            return Some(self.emit_run(id, space, credit, out));
        }
        if whole <= space.full || space.room < FRAGMENT_HEADER + MIN_FRAGMENT {
            // The next datagram takes it.
            return None;
        }
        let message = self.queue.pop_front()?;
        if message.mode == MessageMode::Unreliable {
            self.unreliable = Some((message, 0));
        } else {
            self.open(message, 0);
        }
        self.emit_piece(id, space.room, out)
    }

    /// Gives the message its number and its place in the order.
    fn open(&mut self, message: Queued, sent: u32) {
        self.opened_cost += message.cost() as u64;
        let ordered = message.mode == MessageMode::Ordered;
        let order = if ordered { self.next_order } else { 0 };
        self.next_order += u64::from(ordered);
        self.open.push_back(Open::new(message, order, sent));
    }

    /// The next fragment of the message that is on its way in pieces.
    fn emit_piece(&mut self, id: u16, room: usize, out: &mut Vec<u8>) -> Option<Sent> {
        let room = room.checked_sub(FRAGMENT_HEADER)?;
        if let Some((message, sent)) = &mut self.unreliable {
            let total = message.payload.len() as u32;
            let len = (total - *sent).min(room as u32);
            if (len as usize) < MIN_FRAGMENT && len < total - *sent {
                return None;
            }
            Frame::Fragment(Fragment {
                message: MessageId(self.next_unreliable),
                mode: MessageMode::Unreliable,
                redelivered: message.redelivered,
                stream: id,
                order: 0,
                total,
                offset: *sent,
                payload: &message.payload[*sent as usize..(*sent + len) as usize],
            })
            .emit(out);
            *sent += len;
            let mut forgotten = 0;
            if *sent == total {
                forgotten = message.cost();
                self.queued_bytes -= forgotten;
                self.unreliable = None;
                self.next_unreliable += 1;
            }
            return Some(Sent { content: None, forgotten });
        }
        let message = MessageId(self.next_id() - 1);
        let open = self.open.back_mut()?;
        let (offset, left) = (open.sent, open.total - open.sent);
        let len = left.min(room as u32);
        if (len as usize) < MIN_FRAGMENT && len < left {
            return None;
        }
        open.sent += len;
        Frame::Fragment(open.fragment(id, message, offset, len)).emit(out);
        Some(Sent { content: Some(Content::Fragment { stream: id, message, offset, len }), forgotten: 0 })
    }

    /// As many whole messages of one mode as fit, the first of which does.
    fn emit_run(&mut self, id: u16, space: Space, credit: u64, out: &mut Vec<u8>) -> Sent {
        let (mode, redelivered) =
            self.queue.front().map_or((MessageMode::Reliable, false), |next| (next.mode, next.redelivered));
        let reliable = mode != MessageMode::Unreliable;
        let first = MessageId(if reliable { self.next_id() } else { self.next_unreliable });
        let order = if mode == MessageMode::Ordered { self.next_order } else { 0 };
        let limit = self.opened_cost.saturating_add(credit);
        let mut run = RunWriter::start(out, id, mode, redelivered, first, order);
        let (mut count, mut forgotten) = (0, 0);
        while let Some(next) = self.queue.front() {
            let joins = (next.mode, next.redelivered) == (mode, redelivered)
                && run.len() + RUN_ENTRY + next.payload.len() <= space.room;
            if !joins || count > 0 && (run.len() >= space.budget || !self.may_open(limit - self.opened_cost))
            {
                break;
            }
            let Some(message) = self.queue.pop_front() else { break };
            run.push(&message.payload);
            count += 1;
            if reliable {
                let total = message.payload.len() as u32;
                self.open(message, total);
            } else {
                forgotten += message.cost();
                self.next_unreliable += 1;
            }
        }
        run.finish();
        self.queued_bytes -= forgotten;
        let content = reliable.then_some(Content::Run { stream: id, first, count });
        Sent { content, forgotten }
    }
}
