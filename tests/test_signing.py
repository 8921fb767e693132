"""Pictures signed with the operator's key, read back by the library that others verify with."""

import io
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny

from staged.command_line import UsageError
from staged.generate.command import main
from staged.generate.picture_record import pixels_name, read_record
from staged.generate.signing import PictureSigner, SigningSettings
from staged.server.carrying import as_sent
from staged.trajectory import ImageRef, Sketch, Trajectory
from staged.trajectory_folder import load_trajectory

_MAKE_KEYS = """
openssl ecparam -name prime256v1 -genkey -noout -out ca.key
openssl req -x509 -new -key ca.key -days 30 -subj "/O=Example/CN=Example CA" -out ca.pem \
    -addext keyUsage=critical,keyCertSign
openssl ecparam -name prime256v1 -genkey -noout | openssl pkcs8 -topk8 -nocrypt -out operator.key
openssl ecparam -name prime256v1 -genkey -noout | openssl pkcs8 -topk8 -nocrypt -out other.key
openssl req -new -key operator.key -subj "/O=Example/CN=Operator" -out operator.csr
printf 'basicConstraints=critical,CA:FALSE\\nkeyUsage=critical,digitalSignature\\n' > ext
printf 'extendedKeyUsage=emailProtection\\nauthorityKeyIdentifier=keyid\\n' >> ext
openssl x509 -req -in operator.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 30 -extfile ext \
    -out operator.pem
cat operator.pem ca.pem > chain.pem
"""


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl, to make a certificate")
    folder = tmp_path_factory.mktemp("keys")
    subprocess.run(["sh", "-ec", _MAKE_KEYS], cwd=folder, check=True, capture_output=True)
    return folder


@pytest.fixture
def c2pa() -> Any:
    return pytest.importorskip("c2pa", reason="needs pip install staged[c2pa]")


def settings(keys: Path, **other: Any) -> SigningSettings:
    given = {"certificate": keys / "chain.pem", "key": keys / "operator.key"}
    return SigningSettings(**given | other)


def read_back(c2pa: Any, png: bytes) -> tuple[str, dict[str, Any]]:
    with c2pa.Reader("image/png", io.BytesIO(png)) as reader:
        return reader.get_validation_state(), reader.get_active_manifest()


def test_what_generate_saves_is_signed_and_still_restores_its_run(
    c2pa: Any, keys: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["a star", "--checkpoint", "miniature:fresh", "--flow-steps", "1", "--mode", "one-shot"]
    sign = ["--sign", f"certificate={keys / 'chain.pem'}", f"key={keys / 'operator.key'}"]
    assert main([*argv, *sign, "--seed", "3", "--out", str(tmp_path)]) == 0
    for name in ("0.png", "final.png"):
        png = (tmp_path / name).read_bytes()
        state, manifest = read_back(c2pa, png)
        assert state == "Valid"
        assert manifest["claim_generator_info"][0]["name"] == "staged"
        [actions] = [a for a in manifest["assertions"] if a["label"].startswith("c2pa.actions")]
        [action] = actions["data"]["actions"]
        assert action["action"] == "c2pa.created"
        assert action["digitalSourceType"].endswith("/trainedAlgorithmicMedia")
        assert manifest["signature_info"]["common_name"] == "Operator"
        record, image = read_record(tmp_path / name)
        assert (record.trajectory.prompt, record.seed) == ("a photo of a star", 3)
        changed = png.replace(b"a star", b"a ring", 1)
        assert changed != png and read_back(c2pa, changed)[0] == "Invalid"
    assert pixels_name(image) == pixels_name(load_trajectory(tmp_path).images[0])
    told = capsys.readouterr()
    kept = "".join(p.read_text() for p in tmp_path.rglob("*.json"))
    secret = (keys / "operator.key").read_text().splitlines()[1]
    assert secret not in told.out + told.err + kept


def test_what_a_server_sends_is_signed_if_it_drew_it_and_otherwise_as_it_came(
    c2pa: Any, keys: Path
) -> None:
    signer = PictureSigner(settings(keys))
    given, drawn = (replace(ImageRef.from_array(tiny.picture(n)), name=f"{n}.png") for n in (1, 2))
    trajectory = Trajectory(prompt="a star", inputs=(given,), steps=(Sketch(image=drawn, seed=0),))

    def sent(name: str, **drawing: Any) -> bytes:
        return as_sent(trajectory, name, drawing=drawing, seed=0, id="traj_1", signer=signer)

    assert sent("1.png") == given.png
    for drawing in ({}, {"settings": {}, "checkpoint": "miniature:base"}):
        png = sent("2.png", **drawing)
        assert read_back(c2pa, png)[0] == "Valid"
        assert (b"iTXt" in png) == bool(drawing)
        assert pixels_name(ImageRef(png=png)) == pixels_name(drawn)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"key": "other.key"}, "sign nothing with es256"),
        ({"key": "chain.pem"}, "sign nothing with es256"),
        ({"certificate": "operator.key"}, "sign nothing with es256"),
        ({"algorithm": "ed25519"}, "sign nothing with ed25519"),
        ({"key": "none.key"}, r"sign\.key: .*none\.key: No such file"),
        ({"certificate": "."}, r"sign\.certificate: .*Is a directory"),
    ],
)
def test_a_key_that_signs_nothing_is_told_before_anything_is_drawn(
    c2pa: Any, keys: Path, other: dict[str, str], message: str
) -> None:
    given = {n: v if n == "algorithm" else keys / v for n, v in other.items()}
    with pytest.raises(ValueError, match=message) as raised:
        PictureSigner(settings(keys, **given))
    assert not any(
        line in str(raised.value)
        for name in ("operator.key", "other.key")
        for line in (keys / name).read_text().splitlines()
        if "PRIVATE" not in line
    )


def test_without_the_library_it_says_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "c2pa", None)
    with pytest.raises(ValueError, match=r"pip install staged\[c2pa\]"):
        PictureSigner(SigningSettings(certificate=tmp_path, key=tmp_path))
    with pytest.raises(ValueError, match="algorithm is 'rsa'"):
        SigningSettings(certificate=tmp_path, key=tmp_path, algorithm="rsa")  # type: ignore[arg-type]
    argv = ["a star", "--sign", f"key={tmp_path}", "--out", str(tmp_path / "out")]
    with pytest.raises((UsageError, ValueError), match="certificate"):
        main(argv)
