//! The size of one read.

use crate::exchange::Side;

/// The smallest read, however slow the other side is, apart from the bytes that it lacks of whole segments.
pub(super) const SMALLEST_READ: usize = SMALLEST_KIB as usize * 1024;

/// The largest read. It is sent before the core's cache has lost it, and it fills two of the largest packets that the
/// kernel builds at once. The rest of a larger one would wait for its time on a paced connection, and each time is a
/// timer.
pub(super) const LARGEST_READ: usize = LARGEST_KIB as usize * 1024;

/// The largest packet that the kernel builds for segmentation in the network card holds as many whole segments as fit
/// this: 64 KiB, without its headers and the room reserved for them (`tcp_xmit_size_goal` of Linux).
const PACKET_BYTES: usize = 65_200;

const SMALLEST_KIB: u8 = 16;
const LARGEST_KIB: u8 = 128;

/// The size of one read of an exchange: smaller while the other side does not take as many bytes, and a multiple of
/// whole packets of the outgoing connection, or of whole segments at least. The bytes left over behind those leave as a
/// segment of their own.
#[derive(Clone, Copy, Debug)]
pub(super) struct ReadSize {
    of_client: ClientReadSize,
    /// Bytes of a segment of the connection to the backend; 0 while unknown.
    to_upstream: u16,
}

/// The part that belongs to the client, whose next request may be for another backend. It is small: every idle client
/// has one.
#[derive(Clone, Copy, Debug)]
pub(super) struct ClientReadSize {
    /// The value without segments to fill.
    kib: u8,
    /// Bytes of a segment of the connection to the client; 0 while unknown.
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
    /// The size of a read from a side; `framing` gives the growth of that many bytes when they are forwarded.
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

    /// The other side has accepted everything at once.
    pub(super) fn widen(&mut self) {
        let kib = &mut self.of_client.kib;
        *kib = kib.saturating_mul(2).min(LARGEST_KIB);
    }

    /// The other side has not accepted everything.
    pub(super) fn narrow(&mut self) {
        let kib = &mut self.of_client.kib;
        *kib = (*kib / 4).max(SMALLEST_KIB);
    }

    /// Reads from this side have to fill segments of this many bytes.
    pub(super) fn fit(&mut self, side: Side, segment: Option<u16>) {
        let place = match side {
            Side::Client => &mut self.to_upstream,
            Side::Upstream => &mut self.of_client.to_client,
        };
        *place = segment.unwrap_or(0);
    }

    /// The part that the client keeps for its next request.
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
        // Ethernet with and without timestamps, IPv6, jumbo frames, loopback, unknown.
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
