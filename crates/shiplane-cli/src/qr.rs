//! QR codes on a terminal.

use qrcode::{EcLevel, QrCode, render::unicode::Dense1x2};

use crate::logging::print_line;

/// Prints `text` as a QR code to standard error, two modules a character. What is too long for one is not printed.
pub(crate) fn print(text: &str) {
    if let Some(picture) = picture(text) {
        print_line(&picture);
    }
}

/// Light on dark, as most terminals are; readers take it either way.
fn picture(text: &str) -> Option<String> {
    let code = QrCode::with_error_correction_level(text, EcLevel::L).ok()?;
    let (dark, light) = (Dense1x2::Light, Dense1x2::Dark);
    Some(code.render::<Dense1x2>().dark_color(dark).light_color(light).build())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ticket_fits_a_terminal_of_80_columns() {
        let ticket = format!("shiplane://{}@192.0.2.7:7514,2001:db8::7/#{}", "q".repeat(62), "x".repeat(22));
        let picture = picture(&ticket).unwrap();
        assert!(picture.lines().all(|line| line.chars().count() <= 80), "{picture}");
        assert!(picture.lines().count() <= 40, "{picture}");
        assert!(picture.chars().all(|symbol| matches!(symbol, '\n' | ' ' | '▀' | '▄' | '█')), "{picture}");
    }

    #[test]
    fn text_that_is_too_long_is_not_drawn() {
        assert_eq!(picture(&"x".repeat(5000)), None);
    }
}
