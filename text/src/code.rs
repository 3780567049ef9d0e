//! Codes that people read and type: Crockford's base 32, in groups of four with a hyphen between two. Pure.

/// It omits letters that look like digits, and U.
const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";

const BITS_PER_DIGIT: u32 = 5;
const DIGITS_PER_GROUP: u32 = 4;

/// Formats the lowest bits, five for each digit: `00B7-Q2HM-ZK4T`.
pub fn format(bits: u128, digits: u32) -> String {
    let mut code = String::new();
    for digit in 0..digits {
        if digit > 0 && digit.is_multiple_of(DIGITS_PER_GROUP) {
            code.push('-');
        }
        let value = bits >> (BITS_PER_DIGIT * (digits - 1 - digit)) & 31;
        code.push(char::from(ALPHABET[usize::try_from(value).expect("five bits")]));
    }
    code
}

/// Parses a code as people type it: case is ignored, `O` counts as `0`, `I` and `L` count as `1`, hyphens and spaces
/// are ignored. Returns `None` for any other text.
pub fn parse(text: &str, digits: u32) -> Option<u128> {
    let (mut bits, mut found) = (0, 0);
    for byte in text.bytes().filter(|byte| !b"- ".contains(byte)) {
        let digit = match byte.to_ascii_uppercase() {
            b'O' => b'0',
            b'I' | b'L' => b'1',
            other => other,
        };
        let value = ALPHABET.iter().position(|known| *known == digit)?;
        found += 1;
        if found > digits {
            return None;
        }
        bits = bits << BITS_PER_DIGIT | value as u128;
    }
    (found == digits).then_some(bits)
}
