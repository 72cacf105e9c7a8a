//! Codes: a number and words that a person can say, such as `7-crossover-clockwork`.

use std::{fmt, str::FromStr};

use ring::rand::{SecureRandom as _, SystemRandom};
use shiplane_wire::escape_truncated;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::words::list_at;

/// A code: the number says where its sender is found, number and words together are the password.
///
/// `Debug` shows only the number, which is no secret.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct Code {
    number: u16,
    /// The place of each word in its list.
    words: Vec<u8>,
}

/// A word that was mistyped, and the one that must have been meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Correction {
    /// As typed; escaped.
    pub typed: String,
    /// The word.
    pub meant: &'static str,
}

/// Why a text is no code. All variants are the typist's to correct, and nothing was dialled for them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CodeError {
    /// Longer than any code.
    #[error("this is too long for a code")]
    TooLong,
    /// It does not begin with a number that codes have.
    #[error("a code begins with a number from 1 to {max}")]
    Number {
        /// The highest.
        max: u16,
    },
    /// Too few or too many words.
    #[error("a code has a number and {min} to {max} words; this one has {found}")]
    Words {
        /// How many there are.
        found: usize,
        /// At least.
        min: usize,
        /// At most.
        max: usize,
    },
    /// A word that belongs to another place.
    #[error("\"{word}\" cannot be word {place}: words are missing or in another order")]
    Misplaced {
        /// The word.
        word: String,
        /// Its place, counted from 1.
        place: usize,
    },
    /// No word of a code, nor close to one.
    #[error("word {place}, \"{word}\", is in no code{}", alternatives(.like))]
    Unknown {
        /// As typed; escaped.
        word: String,
        /// Its place, counted from 1.
        place: usize,
        /// Words that are equally close to it.
        like: Vec<&'static str>,
    },
}

/// The system has no randomness.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the system's random source failed")]
pub struct NoRandomness;

impl Code {
    /// A new code with this number of words, between [`MIN_WORDS`] and [`MAX_WORDS`].
    ///
    /// # Errors
    /// [`NoRandomness`]; there is nothing to do but to give up.
    pub fn random(words: usize) -> Result<Self, NoRandomness> {
        let random = SystemRandom::new();
        let mut bytes = vec![0; words.clamp(MIN_WORDS, MAX_WORDS)];
        random.fill(&mut bytes).map_err(|_| NoRandomness)?;
        // Two bytes for the number: that some are a little likelier than others tells nothing.
        let mut number = [0; 2];
        random.fill(&mut number).map_err(|_| NoRandomness)?;
        Ok(Self { number: u16::from_le_bytes(number) % MAX_NUMBER + 1, words: bytes })
    }

    /// The number: what a sender is found by.
    #[must_use]
    pub fn number(&self) -> u16 {
        self.number
    }

    /// The code as it is said and typed, wiped when dropped.
    #[must_use]
    pub fn to_text(&self) -> Zeroizing<String> {
        let mut text = Zeroizing::new(self.number.to_string());
        for (place, word) in self.words.iter().enumerate() {
            text.push('-');
            text.push_str(list_at(place)[usize::from(*word)]);
        }
        text
    }

    /// Reads what was typed. Capitals count as small letters, and anything between the words as a hyphen. A mistyped word
    /// is corrected if only one word is as close to it.
    ///
    /// # Errors
    /// [`CodeError`].
    pub fn parse(text: &str) -> Result<(Self, Vec<Correction>), CodeError> {
        if text.len() > MAX_TEXT_LEN_BYTES {
            return Err(CodeError::TooLong);
        }
        let lower = Zeroizing::new(text.to_lowercase());
        let mut parts = lower.split(|symbol: char| !symbol.is_alphanumeric()).filter(|part| !part.is_empty());
        let number = parts.next().and_then(|part| part.parse().ok());
        let number = number
            .filter(|number| (1..=MAX_NUMBER).contains(number))
            .ok_or(CodeError::Number { max: MAX_NUMBER })?;
        let found = parts.clone().count();
        if !(MIN_WORDS..=MAX_WORDS).contains(&found) {
            return Err(CodeError::Words { found, min: MIN_WORDS, max: MAX_WORDS });
        }
        let mut code = Self { number, words: Vec::with_capacity(found) };
        let mut corrections = Vec::new();
        for (place, typed) in parts.enumerate() {
            let word = recognise(typed, place)?;
            let meant = list_at(place)[usize::from(word)];
            if meant != typed {
                corrections.push(Correction { typed: shown(typed), meant });
            }
            code.words.push(word);
        }
        Ok((code, corrections))
    }

    /// The beginnings of codes that continue `typed` by one word: for a shell.
    #[must_use]
    pub fn completions(typed: &str) -> Vec<String> {
        let Some((whole, begun)) = typed.rsplit_once('-') else { return Vec::new() };
        let place = whole.split('-').count() - 1;
        let is_number = whole.split('-').next().is_some_and(|number| number.parse::<u16>().is_ok());
        if !is_number || place >= MAX_WORDS {
            return Vec::new();
        }
        let begun = begun.to_lowercase();
        let fitting = list_at(place).iter().filter(|word| word.starts_with(&begun));
        fitting.map(|word| format!("{whole}-{word}")).collect()
    }
}

impl FromStr for Code {
    type Err = CodeError;

    fn from_str(text: &str) -> Result<Self, CodeError> {
        Self::parse(text).map(|(code, _)| code)
    }
}

impl fmt::Debug for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Code({}-…)", self.number)
    }
}

/// For the fuzzer: what is read is written so that it reads the same, without a correction.
pub fn fuzz_code(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else { return };
    if let Ok((code, _)) = Code::parse(text) {
        assert!(Code::parse(&code.to_text()).is_ok_and(|again| again == (code, Vec::new())));
    }
    for completed in Code::completions(text) {
        assert!(completed.starts_with(text.rsplit_once('-').map_or("", |(whole, _)| whole)));
    }
}

/// The word at this place that `typed` is, or must be.
fn recognise(typed: &str, place: usize) -> Result<u8, CodeError> {
    let list = list_at(place);
    let found =
        |word: &&str| list.iter().position(|known| known == word).and_then(|at| u8::try_from(at).ok());
    if let Some(word) = found(&typed) {
        return Ok(word);
    }
    if list_at(place + 1).contains(&typed) {
        return Err(CodeError::Misplaced { word: typed.to_owned(), place: place + 1 });
    }
    let distances = list.iter().map(|word| (distance(typed, word), *word));
    let close: Vec<_> = distances.filter(|(errors, word)| *errors <= tolerated(word)).collect();
    let least = close.iter().map(|(errors, _)| *errors).min();
    let like: Vec<_> =
        close.iter().filter(|(errors, _)| Some(*errors) == least).map(|(_, word)| *word).collect();
    match &like[..] {
        [word] => found(word).ok_or(CodeError::TooLong),
        _ => Err(CodeError::Unknown { word: shown(typed), place: place + 1, like }),
    }
}

/// How many letters of a word may be wrong: one in four.
const fn tolerated(word: &str) -> usize {
    word.len() / 4
}

/// Letters to insert, remove, replace, or swap with their neighbour, to make one word the other.
fn distance(one: &str, other: &str) -> usize {
    let (one, other): (Vec<char>, Vec<char>) = (one.chars().collect(), other.chars().collect());
    let mut before_last: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=other.len()).collect();
    for (row, a) in one.iter().enumerate() {
        let mut current = vec![row + 1];
        for (column, b) in other.iter().enumerate() {
            let replaced = last[column] + usize::from(a != b);
            let mut least = replaced.min(last[column + 1] + 1).min(current[column] + 1);
            let is_swap = row > 0 && column > 0 && one[row - 1] == *b && *a == other[column - 1];
            if is_swap {
                least = least.min(before_last[column - 1] + 1);
            }
            current.push(least);
        }
        before_last = std::mem::replace(&mut last, current);
    }
    last.last().copied().unwrap_or_default()
}

fn shown(typed: &str) -> String {
    escape_truncated(typed.as_bytes(), MAX_SHOWN_LEN_BYTES).to_string()
}

fn alternatives(words: &[&str]) -> String {
    match words {
        [] => String::new(),
        words => format!(": {}?", words.iter().take(MAX_LIKE).copied().collect::<Vec<_>>().join(" or ")),
    }
}

/// Two words: 16 bits, of which three guesses find one in 20,000.
pub const MIN_WORDS: usize = 2;

/// Eight words: 64 bits. More is a ticket's work.
pub const MAX_WORDS: usize = 8;

/// Three digits: short to say, and two senders on one network seldom have the same.
const MAX_NUMBER: u16 = 999;

/// The longest code has 8 words of at most 11 letters; the rest is for blanks.
const MAX_TEXT_LEN_BYTES: usize = 256;

/// 32 bytes: longer than any word.
const MAX_SHOWN_LEN_BYTES: usize = 32;

/// Three words: a line.
const MAX_LIKE: usize = 3;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn code(text: &str) -> Code {
        text.parse().unwrap()
    }

    #[test]
    fn the_text_form_is_the_documented_one() {
        let golden = Code { number: 7, words: vec![0x3A, 0x2F] };
        assert_eq!(&**golden.to_text(), "7-corrosion-cement");
        assert_eq!(code("7-corrosion-cement"), golden);
        assert_eq!(code("7-crossover-clockwork").number(), 7);
    }

    #[test]
    fn blanks_capitals_and_a_newline_mean_the_same_code() {
        let meant = code("7-crossover-clockwork");
        for text in [
            " 7 Crossover Clockwork\r\n",
            "7_CROSSOVER_clockwork",
            "007-crossover--clockwork",
            "7, crossover, clockwork.",
            "7\u{a0}crossover\u{2013}clockwork",
        ] {
            assert_eq!(Code::parse(text), Ok((meant.clone(), Vec::new())), "{text:?}");
        }
    }

    #[test]
    fn a_mistyped_word_is_corrected_if_only_one_can_be_meant() {
        for (typed, meant) in [
            ("7-crosover-clockwork", "crossover"),
            ("7-corssover-clockwork", "crossover"),
            ("7-crossover-clockwrok", "clockwork"),
            ("7-crossover-clok work", "clockwork"),
        ] {
            let Ok((read, corrections)) = Code::parse(typed) else {
                assert!(typed.contains(' '), "{typed}");
                continue;
            };
            assert_eq!(read, code("7-crossover-clockwork"), "{typed}");
            assert_eq!(corrections[0].meant, meant);
        }
        let unknown = Code::parse("7-crossover-xyzzy").unwrap_err();
        assert_eq!(unknown, CodeError::Unknown { word: "xyzzy".into(), place: 2, like: Vec::new() });
    }

    #[test]
    fn each_mistake_is_named_and_safe_to_print() {
        let error = |text: &str| Code::parse(text).unwrap_err();
        for text in ["", "crossover-clockwork", "0-crossover-clockwork", "1000-a-b", "70000-a-b"] {
            assert_eq!(error(text), CodeError::Number { max: 999 }, "{text}");
        }
        assert_eq!(error("7-crossover"), CodeError::Words { found: 1, min: 2, max: 8 });
        assert_eq!(error("7"), CodeError::Words { found: 0, min: 2, max: 8 });
        assert_eq!(
            error("7-clockwork-crossover"),
            CodeError::Misplaced { word: "clockwork".into(), place: 1 }
        );
        assert_eq!(error(&"7-crossover ".repeat(30)), CodeError::TooLong);
        let hostile = error("7-crossover-\u{202e}\u{1b}[2Jx").to_string();
        assert!(!hostile.contains(['\u{1b}', '\u{202e}']), "{hostile}");
    }

    #[test]
    fn a_shell_completes_the_word_that_has_begun() {
        assert_eq!(Code::completions("7-crosso"), ["7-crossover"]);
        assert_eq!(Code::completions("7-crossover-clock"), ["7-crossover-clockwork"]);
        assert_eq!(Code::completions("7-crossover-").len(), 256);
        for none in ["", "7", "x-cross", "7-zzz"] {
            assert!(Code::completions(none).is_empty(), "{none}");
        }
    }

    #[test]
    fn only_the_number_is_shown() {
        assert_eq!(format!("{:?}", code("7-crossover-clockwork")), "Code(7-…)");
    }

    #[test]
    fn random_codes_have_the_words_that_were_asked_for_and_differ() {
        let texts: std::collections::HashSet<_> =
            (0..50).map(|_| Code::random(4).unwrap().to_text().to_string()).collect();
        assert_eq!(texts.len(), 50);
        assert!(texts.iter().all(|text| text.split('-').count() == 5));
        assert_eq!(Code::random(0).unwrap().words.len(), 2);
    }

    #[test]
    fn every_word_with_one_letter_missing_is_recognised_or_refused_but_never_another() {
        for place in [0, 1] {
            for word in list_at(place) {
                for at in 0..word.len() {
                    let typed: String = word
                        .chars()
                        .enumerate()
                        .filter(|(n, _)| *n != at)
                        .map(|(_, symbol)| symbol)
                        .collect();
                    if let Ok(found) = recognise(&typed, place) {
                        let found = list_at(place)[usize::from(found)];
                        assert!(
                            found == *word || list_at(place).contains(&typed.as_str()),
                            "{typed}: {found}"
                        );
                    }
                }
            }
        }
    }

    proptest! {
        #[test]
        fn any_code_survives_being_said(number in 1..=MAX_NUMBER, words in proptest::collection::vec(any::<u8>(), 2..=8)) {
            let code = Code { number, words };
            prop_assert_eq!(Code::parse(&code.to_text()), Ok((code, Vec::new())));
        }

        #[test]
        fn any_text_is_read_or_refused(text in ".{0,80}") {
            fuzz_code(text.as_bytes());
        }
    }
}
