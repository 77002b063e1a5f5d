"""Settings: errors that name the key, and a reference that is true."""

from pathlib import Path

import pytest

from tests.tools import PROJECT
from triage.settings import SettingsError, load_settings, settings_reference


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty configuration file that `load_settings` reads."""
    file = tmp_path / "triage.toml"
    file.touch()
    monkeypatch.setenv("TRIAGE_CONFIG", str(file))
    return file


def test_file_and_environment_set_the_same_keys(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config.write_text('[receiver]\nport = 104\nae_title = "FROM_FILE"\n')
    monkeypatch.setenv("TRIAGE_RECEIVER__PORT", "11113")

    receiver = load_settings().receiver

    assert (receiver.port, receiver.ae_title) == (11113, "FROM_FILE")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("[receiver]\nprot = 104\n", "receiver.prot: unknown key; did you mean 'port'?"),
        ("[receiver]\nport = 99999\n", "receiver.port: "),
        ("[reciever]\nport = 104\n", "did you mean 'receiver'?"),
        ('[database]\nurl = "mysql://x"\n', "must begin with sqlite:/// or postgresql+psycopg://"),
        ('[[destinations]]\nname = "a"\nhost = "h"\nport = 1\n', "destinations.0.ae_title"),
        ("[receiver\n", "not valid TOML"),
        ('[[senders]]\nae_title = "A"\naddresses = ["10.1.2.3/24"]\n', "has host bits set"),
        ('[[senders]]\nae_title = "A"\n' * 2, "senders: A is there twice"),
        ("[receiver]\nplain = false\n", "receiver.tls_port must be set"),
        ("[receiver]\ntls_port = 2762\n", "needs tls.certificate"),
        ('[tls]\nprivate_key = "a"\n', "belong together"),
        ('[tls]\nclient_certificates = "required"\n', "tls.authorities must name"),
        ('[[watch.rules]]\nname = "a"\nmetrc = "drift"\n', "did you mean 'metric'?"),
        ('[[watch.rules]]\nname = "a"\nmetric = "drift"\n' * 2, "watch.rules: a is there twice"),
        (
            '[[watch.rules]]\nname = "a"\nmetric = "drift"\ncomparison = "outside-reference"\n',
            "use above or below for drift",
        ),
        (
            '[results]\nseries_description = "AI {findings}"\n',
            "results.series_description: {findings} is unknown; known are {finding}, {model}",
        ),
        ('[results]\nsegmentation_type = "binary"\n', "results.segmentation_type: "),
        ("[retention]\nstart_below_free_mb = 9\n", "retention.until_free_mb must be at least"),
    ],
)
def test_wrong_configuration_names_the_key_and_the_fix(
    config: Path, content: str, words: str
) -> None:
    config.write_text(content)

    with pytest.raises(SettingsError) as raised:
        load_settings()

    assert words in str(raised.value)


def test_config_file_that_does_not_exist_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRIAGE_CONFIG", "/nowhere/triage.toml")

    with pytest.raises(SettingsError, match="TRIAGE_CONFIG names /nowhere"):
        load_settings()


def test_reference_in_the_documentation_is_true() -> None:
    assert settings_reference() in (PROJECT / "docs" / "configuration.md").read_text()
