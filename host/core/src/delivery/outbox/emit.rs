//! What a stream sends for the first time.

use alloc::vec::Vec;

use bytes::Bytes;
use overlan_wire::frame::{FRAGMENT_HEADER, RUN_ENTRY, RUN_HEADER, RunWriter};
use overlan_wire::limits::MESSAGE_WINDOW;
use overlan_wire::{Fragment, Frame, MessageId, MessageMode};

use super::batch::cost;
use super::stream::{OutStream, Piece};
use super::{MIN_FRAGMENT, Space};
use crate::delivery::Content;

/// What a stream sent for the first time.
pub(super) struct Sent {
    pub(super) content: Option<Content>,
    /// Cost of unreliable messages that are gone with it.
    pub(super) forgotten: usize,
}

impl OutStream {
    /// Appends the next frame, if the peer's credit in all leaves `credit`.
    pub(super) fn emit(&mut self, id: u16, space: Space, credit: u64, out: &mut Vec<u8>) -> Option<Sent> {
        if self.in_pieces() {
            return self.emit_piece(id, space.room, out);
        }
        let head = self.head(credit)?;
        let unreliable = head.queued.mode == MessageMode::Unreliable;
        let whole = RUN_HEADER + RUN_ENTRY + head.next()?.len();
        if whole <= space.room {
            return match unreliable {
                true => self.emit_unreliable_run(id, space, out),
                false => self.emit_run(id, space, credit, out),
            };
        }
        if whole <= space.full || space.room < FRAGMENT_HEADER + MIN_FRAGMENT {
            // The next datagram takes it.
            return None;
        }
        if unreliable {
            let redelivered = head.queued.redelivered;
            self.piece = Some(Piece { payload: self.take_unreliable()?, redelivered, sent: 0 });
        } else {
            self.open();
            self.current = Some(0);
        }
        self.emit_piece(id, space.room, out)
    }

    /// The next reliable message gets its number and its place in the order.
    fn open(&mut self) {
        let Some(batch) = self.reliable.get_mut(self.next) else { return };
        self.opened_cost += batch.next().map_or(0, cost) as u64;
        batch.open(self.next_id, self.next_order);
        self.next_id += 1;
        self.next_order += u64::from(batch.queued.mode == MessageMode::Ordered);
        self.next += usize::from(batch.is_opened());
    }

    /// The next unreliable message leaves.
    fn take_unreliable(&mut self) -> Option<Bytes> {
        let batch = self.unreliable.front_mut()?;
        let payload = core::mem::take(batch.queued.payloads.get_mut(batch.opened)?);
        batch.opened += 1;
        if batch.is_opened() {
            self.unreliable.pop_front();
        }
        Some(payload)
    }

    /// The next fragment of the message that is on its way in pieces.
    fn emit_piece(&mut self, id: u16, room: usize, out: &mut Vec<u8>) -> Option<Sent> {
        let room = room.checked_sub(FRAGMENT_HEADER)?;
        // What fits of so many bytes, if that is worth it.
        let fitting = |left: u32| {
            let len = left.min(room as u32);
            (len as usize >= MIN_FRAGMENT || len == left).then_some(len)
        };
        if let Some(piece) = &mut self.piece {
            let total = piece.payload.len() as u32;
            let len = fitting(total - piece.sent)?;
            Frame::Fragment(Fragment {
                message: MessageId(self.next_unreliable),
                mode: MessageMode::Unreliable,
                redelivered: piece.redelivered,
                stream: id,
                order: 0,
                total,
                offset: piece.sent,
                payload: &piece.payload[piece.sent as usize..(piece.sent + len) as usize],
            })
            .emit(out);
            piece.sent += len;
            let mut forgotten = 0;
            if piece.sent == total {
                forgotten = cost(&piece.payload);
                self.queued_bytes -= forgotten;
                self.piece = None;
                self.next_unreliable += 1;
            }
            return Some(Sent { content: None, forgotten });
        }
        let (message, offset) = (MessageId(self.next_id - 1), self.current?);
        // The last one opened: of the batch that is partly open, or of the one before.
        let partly = self.reliable.get(self.next).is_some_and(|batch| batch.opened > 0);
        let batch = self.reliable.get((self.next + usize::from(partly)).checked_sub(1)?)?;
        let at = batch.opened.checked_sub(1)? as u32;
        let total = batch.payload(at).len() as u32;
        let len = fitting(total - offset)?;
        Frame::Fragment(batch.fragment(id, at, offset, len)).emit(out);
        self.current = (offset + len < total).then_some(offset + len);
        Some(Sent { content: Some(Content::Fragment { stream: id, message, offset, len }), forgotten: 0 })
    }

    /// As many whole messages of one mode as fit, the first of which does.
    fn emit_run(&mut self, id: u16, space: Space, credit: u64, out: &mut Vec<u8>) -> Option<Sent> {
        let head = &self.reliable.get(self.next)?.queued;
        let (mode, redelivered) = (head.mode, head.redelivered);
        let ordered = mode == MessageMode::Ordered;
        let (first, order) = (self.next_id, if ordered { self.next_order } else { 0 });
        let most = self.opened_cost.saturating_add(credit).min(self.credit);
        let last = self.base + MESSAGE_WINDOW;
        let mut run = RunWriter::start(out, id, mode, redelivered, MessageId(first), order);
        'run: while let Some(batch) = self.reliable.get_mut(self.next)
            && (batch.queued.mode, batch.queued.redelivered) == (mode, redelivered)
        {
            while let Some(payload) = batch.next() {
                let opened_cost = self.opened_cost + cost(payload) as u64;
                let fits = run.len() + RUN_ENTRY + payload.len() <= space.room;
                let joins = run.len() < space.budget && opened_cost <= most && self.next_id < last;
                if !fits || self.next_id > first && !joins {
                    break 'run;
                }
                run.push(payload);
                batch.open(self.next_id, self.next_order);
                self.next_id += 1;
                self.next_order += u64::from(ordered);
                self.opened_cost = opened_cost;
            }
            self.next += 1;
        }
        run.finish();
        let count = (self.next_id - first) as u16;
        let content = Content::Run { stream: id, first: MessageId(first), count };
        Some(Sent { content: Some(content), forgotten: 0 })
    }

    /// The same of unreliable ones.
    fn emit_unreliable_run(&mut self, id: u16, space: Space, out: &mut Vec<u8>) -> Option<Sent> {
        let redelivered = self.unreliable.front()?.queued.redelivered;
        let first = MessageId(self.next_unreliable);
        let mut run = RunWriter::start(out, id, MessageMode::Unreliable, redelivered, first, 0);
        let mut forgotten = 0;
        while let Some(batch) =
            self.unreliable.front().filter(|batch| batch.queued.redelivered == redelivered)
            && let Some(next) = batch.next()
            && run.len() + RUN_ENTRY + next.len() <= space.room
            && (forgotten == 0 || run.len() < space.budget)
            && let Some(payload) = self.take_unreliable()
        {
            run.push(&payload);
            forgotten += cost(&payload);
            self.next_unreliable += 1;
        }
        run.finish();
        self.queued_bytes -= forgotten;
        Some(Sent { content: None, forgotten })
    }
}
