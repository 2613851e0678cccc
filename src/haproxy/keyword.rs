//! The treatment of keywords, and the tables that define it once for parsing, for the check and for
//! docs/from-haproxy.md.

/// The treatment of a keyword.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Treatment {
    /// sluice implements it.
    Honoured,
    /// sluice implements it differently: the note describes the difference.
    Mapped,
    /// It does not affect how requests are served here: nothing is lost.
    Ignored,
    /// It is left out: a loss that is reported.
    Lost,
    /// It decides about access or routing, and sluice does not implement it.
    Refused,
    /// It is not a keyword of HAProxy, or its line is malformed.
    Wrong,
}

impl Treatment {
    /// The name in the check and in the table.
    pub fn name(self) -> &'static str {
        match self {
            Self::Honoured => "honoured",
            Self::Mapped => "mapped",
            Self::Ignored => "ignored",
            Self::Lost => "lost",
            Self::Refused => "refused",
            Self::Wrong => "wrong",
        }
    }
}

/// The sections in which a keyword may occur, as bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Places(pub(super) u8);

impl Places {
    pub(super) const DEFAULTS: Self = Self(1);
    pub(super) const FRONTEND: Self = Self(2);
    pub(super) const BACKEND: Self = Self(4);

    pub(super) fn has(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// The names, such as `defaults, frontend, listen`.
    pub(super) fn names(self) -> String {
        let all = [
            (Self::DEFAULTS, "defaults"),
            (Self::FRONTEND, "frontend"),
            (Self(Self::FRONTEND.0 | Self::BACKEND.0), "listen"),
            (Self::BACKEND, "backend"),
        ];
        all.iter().filter(|(place, _)| self.has(*place)).map(|(_, name)| *name).collect::<Vec<_>>().join(", ")
    }
}

/// The known keyword that was probably meant: at most a third of its letters differ.
pub(super) fn nearest<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let len = word.chars().count();
    let distances = known.filter_map(|known| {
        let longest = len.max(known.chars().count());
        // Keywords of a very different length need no comparison.
        let difference = len.abs_diff(known.chars().count());
        if difference * 3 > longest || longest > 100 {
            return None;
        }
        let distance = strsim::damerau_levenshtein(word, known);
        (distance * 3 <= longest).then_some((distance, known))
    });
    distances.min_by_key(|(distance, _)| *distance).map(|(_, known)| known)
}
