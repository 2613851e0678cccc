//! How much one read may bring.

use crate::exchange::Side;

/// What a read may bring at least, however slow the other side is, but for what it lacks of whole segments.
pub(super) const SMALLEST_READ: usize = SMALLEST_KIB as usize * 1024;

/// What a read may bring at the most. It leaves again before the core's cache has lost it, and it fills two of the largest
/// packets that the system makes at once: of more, those behind would wait for their time, where the connection is
/// paced, and each time is a timer.
pub(super) const LARGEST_READ: usize = LARGEST_KIB as usize * 1024;

/// As many whole segments as fit this are the largest packet that the system makes, for a network card to take apart: 64 KiB,
/// without its headers and the room that is left for those (`tcp_xmit_size_goal` of Linux).
const PACKET_BYTES: usize = 65_200;

const SMALLEST_KIB: u8 = 16;
const LARGEST_KIB: u8 = 128;

/// How many bytes one read of an exchange may bring: fewer while the other side does not take as many, and as many as fill
/// whole packets of the connection that they go to, or whole segments at least. What is left over behind those leaves as a
/// segment of its own.
#[derive(Clone, Copy, Debug)]
pub(super) struct ReadSize {
    of_client: ClientReadSize,
    /// How many bytes a segment of the connection to the backend has; 0 as long as that is of no interest.
    to_upstream: u16,
}

/// What of it is the client's own, whose next request may be for another backend. It is small: every idle client has one.
#[derive(Clone, Copy, Debug)]
pub(super) struct ClientReadSize {
    /// What it is where no segments are to be filled.
    kib: u8,
    /// How many bytes a segment of the connection to the client has; 0 as long as that is of no interest.
    to_client: u16,
}

impl Default for ClientReadSize {
    fn default() -> Self {
        Self { kib: LARGEST_KIB, to_client: 0 }
    }
}

impl From<ClientReadSize> for ReadSize {
    fn from(of_client: ClientReadSize) -> Self {
        Self { of_client, to_upstream: 0 }
    }
}

impl ReadSize {
    /// How much may be read from a side; `framing` tells by how much that many bytes grow on their way.
    pub(super) fn of(self, side: Side, framing: impl FnOnce(usize) -> usize) -> usize {
        let most = usize::from(self.of_client.kib) * 1024;
        let segment = match side {
            Side::Client => usize::from(self.to_upstream),
            Side::Upstream => usize::from(self.of_client.to_client),
        };
        let Some(segments) = PACKET_BYTES.checked_div(segment) else { return most };
        let unit = [segments.max(1) * segment, segment].into_iter().find(|unit| *unit <= most);
        let whole = unit.map_or(most, |unit| most - most % unit);
        whole - framing(whole)
    }

    /// The other side has taken all at once.
    pub(super) fn widen(&mut self) {
        let kib = &mut self.of_client.kib;
        *kib = kib.saturating_mul(2).min(LARGEST_KIB);
    }

    /// The other side has not taken all.
    pub(super) fn narrow(&mut self) {
        let kib = &mut self.of_client.kib;
        *kib = (*kib / 4).max(SMALLEST_KIB);
    }

    /// What is read from this side is to fill segments of so many bytes.
    pub(super) fn fit(&mut self, side: Side, segment: Option<u16>) {
        let place = match side {
            Side::Client => &mut self.to_upstream,
            Side::Upstream => &mut self.of_client.to_client,
        };
        *place = segment.unwrap_or(0);
    }

    /// What the client keeps for its next request.
    pub(super) fn of_client(self) -> ClientReadSize {
        self.of_client
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_reader_narrows_the_reads_and_a_fast_one_widens_them() {
        let mut limit = ReadSize::from(ClientReadSize::default());
        let narrowed = [(); 4].map(|()| (limit.narrow(), limit.of(Side::Client, |_| 0)).1);
        let widened = [(); 5].map(|()| (limit.widen(), limit.of(Side::Upstream, |_| 0)).1);
        assert_eq!(narrowed, [32, 16, 16, 16].map(|kib| kib * 1024));
        assert_eq!(widened, [32, 64, 128, 128, 128].map(|kib| kib * 1024));
    }

    #[test]
    fn reads_of_a_side_fill_whole_packets_to_the_other() {
        // Of Ethernet with and without timestamps, with IPv6, with large frames, of loopback, of nobody.
        let table = [
            (Some(1448), 2 * 45 * 1448, 11 * 1448),
            (Some(1460), 2 * 44 * 1460, 11 * 1460),
            (Some(1428), 2 * 45 * 1428, 11 * 1428),
            (Some(8948), 2 * 7 * 8948, 8948),
            (Some(65_483), 2 * 65_483, 16_384),
            (Some(0), 131_072, 16_384),
            (None, 131_072, 16_384),
        ];
        for (segment, largest, smallest) in table {
            for side in [Side::Client, Side::Upstream] {
                let mut limit = ReadSize::from(ClientReadSize::default());
                limit.fit(side, segment);
                assert_eq!(limit.of(side, |_| 0), largest, "{segment:?}");
                assert_eq!(limit.of(side.other(), |_| 9), 131_072);
                let frame = if segment.unwrap_or(0) == 0 { 0 } else { 9 };
                assert_eq!(limit.of(side, |_| 9), largest - frame, "{segment:?}");
                limit.narrow();
                limit.narrow();
                assert_eq!(limit.of(side, |_| 0), smallest, "{segment:?}");
            }
        }
    }

    #[test]
    fn each_side_has_segments_of_its_own_and_those_to_a_backend_are_forgotten() {
        let mut limit = ReadSize::from(ClientReadSize::default());
        limit.fit(Side::Client, Some(1000));
        limit.fit(Side::Upstream, Some(999));
        let of = |limit: ReadSize| [Side::Client, Side::Upstream].map(|side| limit.of(side, |_| 0));
        assert_eq!(of(limit), [130_000, 2 * 65 * 999]);
        assert_eq!(of(limit.of_client().into()), [131_072, 2 * 65 * 999]);
    }
}
