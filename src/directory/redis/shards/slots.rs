//! The hash slot of a key. Source: the specification of Redis Cluster, "Key distribution model" and "Hash tags".

/// Number of slots.
pub(in crate::directory::redis) const SLOTS: usize = 16_384;

/// CRC-16/XMODEM of each byte.
const TABLE: [u16; 256] = table();

const fn table() -> [u16; 256] {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = (byte as u16) << 8;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 0x8000 == 0 { crc << 1 } else { crc << 1 ^ 0x1021 };
            bit += 1;
        }
        table[byte] = crc;
        byte += 1;
    }
    table
}

/// The slot of a key.
pub(in crate::directory::redis) fn slot_of(key: &[u8]) -> u16 {
    let crc = hashed_part(key).iter().fold(0_u16, |crc, byte| crc << 8 ^ TABLE[usize::from((crc >> 8) as u8 ^ byte)]);
    crc % SLOTS as u16
}

/// The part of a key that is hashed: its hash tag if it has one, between the first `{` and the next `}`.
fn hashed_part(key: &[u8]) -> &[u8] {
    let Some(open) = key.iter().position(|byte| *byte == b'{') else { return key };
    match key[open + 1..].iter().position(|byte| *byte == b'}') {
        None | Some(0) => key,
        Some(length) => &key[open + 1..open + 1 + length],
    }
}

/// A set of slots.
#[derive(Clone, PartialEq, Eq)]
pub(in crate::directory::redis) struct SlotSet(Box<[u64; SLOTS / 64]>);

impl SlotSet {
    /// No slot.
    pub(in crate::directory::redis) fn none() -> Self {
        Self(Box::new([0; SLOTS / 64]))
    }

    pub(in crate::directory::redis) fn insert(&mut self, slot: u16) {
        let slot = usize::from(slot) % SLOTS;
        self.0[slot / 64] |= 1 << (slot % 64);
    }

    pub(in crate::directory::redis) fn contains(&self, slot: u16) -> bool {
        let slot = usize::from(slot) % SLOTS;
        self.0[slot / 64] & 1 << (slot % 64) != 0
    }

    /// Number of slots in the set.
    pub(in crate::directory::redis) fn len(&self) -> usize {
        self.0.iter().map(|part| part.count_ones() as usize).sum()
    }

    pub(in crate::directory::redis) fn is_empty(&self) -> bool {
        self.0.iter().all(|part| *part == 0)
    }
}

impl std::fmt::Debug for SlotSet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SlotSet({} slots)", self.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first is the check value of the specification; the others come from `CLUSTER KEYSLOT` of Redis 7.0.
    #[test]
    fn slots_are_those_of_redis() {
        for (key, slot) in [
            ("123456789", 0x31c3 % SLOTS as u16),
            ("", 0),
            ("foo", 12_182),
            ("{user1000}.following", slot_of(b"user1000")),
            ("foo{}{bar}", slot_of(b"foo{}{bar}")),
            ("foo{{bar}}zap", slot_of(b"{bar")),
            ("foo{bar}{zap}", slot_of(b"bar")),
            ("foo{bar", slot_of(b"foo{bar")),
        ] {
            assert_eq!(slot_of(key.as_bytes()), slot, "{key}");
        }
        assert_ne!(slot_of(b"foo{}{bar}"), slot_of(b"bar"));
    }

    #[test]
    fn a_set_has_what_was_inserted() {
        let mut set = SlotSet::none();
        assert!(set.is_empty());
        [0, 63, 64, 16_383].into_iter().for_each(|slot| set.insert(slot));
        assert_eq!(set.len(), 4);
        assert!((0..SLOTS as u16).all(|slot| set.contains(slot) == [0, 63, 64, 16_383].contains(&slot)));
    }
}
