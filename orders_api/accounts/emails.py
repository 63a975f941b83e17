"""Email addresses: how one is stored, and what makes two spellings the same address."""

import unicodedata

import email_validator

MAX_CHARACTERS = 254  # RFC 5321, 4.5.3.1.3, less the angle brackets

# Names such as `.test` and `.invalid` are syntax like any other; whether mail arrives there is not asked here.
email_validator.SPECIAL_USE_DOMAIN_NAMES.clear()


def normalised(text: str) -> str:
    """The address trimmed and in NFKC, its case kept. Raises ValueError with a sentence a person can act on."""
    address = text.strip()
    # Before NFKC, whose time grows with the square of a hostile text's length, and after: it can make text longer.
    if len(address) <= MAX_CHARACTERS:
        address = _nfkc(address).strip()
    if len(address) > MAX_CHARACTERS:
        raise ValueError(f"Must have at most {MAX_CHARACTERS} characters.")
    _parsed(address)
    return address


def key_of(text: str) -> str:
    """The same for every spelling of an address: case, Unicode form, spaces around it. Raises ValueError."""
    parsed = _parsed(normalised(text))
    local = _nfkc(_nfkc(parsed.local_part).casefold())
    return f"{local}@{parsed.ascii_domain.lower()}"


def _parsed(address: str) -> email_validator.ValidatedEmail:
    try:
        return email_validator.validate_email(address, check_deliverability=False)
    except email_validator.EmailNotValidError:
        raise ValueError("Must be an email address such as name@shop.example.") from None


def _nfkc(text: str) -> str:
    return unicodedata.normalize("NFKC", text)
