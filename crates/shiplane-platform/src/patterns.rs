//! Lines of patterns as in a `.gitignore`.

use gix_glob::{Pattern, pattern::Case, wildmatch};

/// Patterns, of which the last that matches a path decides. They take little more memory than their text, however
/// many names they are compared with.
#[derive(Clone, Debug, Default)]
pub struct Patterns(Vec<Pattern>);

impl Patterns {
    /// Adds a line, unless it is empty or a comment. Gives the reason if it can match nothing that was meant.
    pub fn add(&mut self, line: &[u8]) -> Result<(), &'static str> {
        if line.starts_with(b"#") {
            return Ok(());
        }
        let Some(pattern) = Pattern::from_bytes(without_trailing_spaces(line)) else { return Ok(()) };
        check(&pattern.text)?;
        self.0.push(pattern);
        Ok(())
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What they take in memory.
    pub fn cost_bytes(&self) -> usize {
        self.0.iter().map(|pattern| pattern.text.len() + PATTERN_COST_BYTES).sum()
    }

    /// Whether `path`, relative to where the patterns stand, is excluded; `None` if no pattern matches.
    pub fn decide(&self, path: &[u8], is_directory: bool) -> Option<bool> {
        let name_at = path.iter().rposition(|byte| *byte == b'/').map(|at| at + 1);
        let matches = |pattern: &&Pattern| {
            let (case, mode) = (Case::Sensitive, wildmatch::Mode::NO_MATCH_SLASH_LITERAL);
            pattern.matches_repo_relative_path(path.into(), name_at, Some(is_directory), case, mode)
        };
        self.0.iter().rev().find(matches).map(|pattern| !pattern.is_negative())
    }
}

/// Spaces at the end of a line do not count, unless the last one is escaped.
fn without_trailing_spaces(line: &[u8]) -> &[u8] {
    let trimmed = line.trim_ascii_end();
    let backslashes = trimmed.iter().rev().take_while(|byte| **byte == b'\\').count();
    let escaped = usize::from(backslashes % 2 == 1 && trimmed.len() < line.len());
    &line[..trimmed.len() + escaped]
}

/// Git takes each of these for a pattern that matches nothing.
fn check(text: &[u8]) -> Result<(), &'static str> {
    if text.is_empty() {
        return Err("it is empty");
    }
    let (mut bytes, mut stars) = (text.iter().copied().peekable(), 0);
    while let Some(byte) = bytes.next() {
        match byte {
            b'\\' => _ = bytes.next().ok_or("a backslash at its end escapes nothing")?,
            b'*' => stars += 1,
            b'[' => check_class(&mut bytes)?,
            _ => {}
        }
    }
    if stars > MAX_STARS { Err("it has too many stars") } else { Ok(()) }
}

/// Reads what follows a `[`, up to its `]`.
fn check_class(bytes: &mut std::iter::Peekable<impl Iterator<Item = u8>>) -> Result<(), &'static str> {
    let not_closed = "a [ is not closed; \\[ means the character";
    let _negation = bytes.next_if(|byte| matches!(byte, b'!' | b'^'));
    let (mut before, mut is_first) = (None, true);
    loop {
        let byte = match bytes.next().ok_or(not_closed)? {
            b']' if !is_first => return Ok(()),
            b'[' if bytes.next_if_eq(&b':').is_some() => {
                bytes.find(|byte| *byte == b']').ok_or(not_closed)?;
                (before, is_first) = (None, false);
                continue;
            }
            b'-' if before.is_some() && bytes.peek().is_some_and(|byte| *byte != b']') => {
                let mut last = bytes.next().ok_or(not_closed)?;
                if last == b'\\' {
                    last = bytes.next().ok_or(not_closed)?;
                }
                if before.take() > Some(last) {
                    return Err("a range of characters ends before it begins");
                }
                is_first = false;
                continue;
            }
            b'\\' => bytes.next().ok_or(not_closed)?,
            byte => byte,
        };
        (before, is_first) = (Some(byte), false);
    }
}

/// What a pattern takes beside its text.
const PATTERN_COST_BYTES: usize = 96;

/// From 64 on, matching gives up.
const MAX_STARS: usize = 60;
