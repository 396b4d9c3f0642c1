"""What to install for a module that is missing, and the programs that some modules work with."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

#: Modules whose distribution is called otherwise; `pip` takes ``_``, ``-`` and case for the same.
#: Of dotted names the longest that fits counts.
_DISTRIBUTIONS: Mapping[str, str] = {
    "Bio": "biopython",
    "Crypto": "pycryptodome",
    "Cryptodome": "pycryptodomex",
    "MySQLdb": "mysqlclient",
    "OpenSSL": "pyopenssl",
    "PIL": "pillow",
    "_jsonnet": "jsonnet",
    "_yaml": "PyYAML",
    "attr": "attrs",
    "azure.identity": "azure-identity",
    "azure.storage": "azure-storage-blob",
    "bs4": "beautifulsoup4",
    "clip": "openai-clip",
    "cv2": "opencv-python",
    "dateutil": "python-dateutil",
    "discord": "discord.py",
    "distutils": "setuptools",
    "docx": "python-docx",
    "dotenv": "python-dotenv",
    "ebooklib": "EbookLib",
    "faiss": "faiss-cpu",
    "ffmpeg": "ffmpeg-python",
    "fitz": "pymupdf",
    "gi": "PyGObject",
    "git": "GitPython",
    "github": "PyGithub",
    "google.auth": "google-auth",
    "google.cloud.bigquery": "google-cloud-bigquery",
    "google.cloud.storage": "google-cloud-storage",
    "google.genai": "google-genai",
    "google.generativeai": "google-generativeai",
    "google.oauth2": "google-auth",
    "google.protobuf": "protobuf",
    "googleapiclient": "google-api-python-client",
    "grpc": "grpcio",
    "haystack": "haystack-ai",
    "jose": "python-jose",
    "jwt": "PyJWT",
    "kafka": "kafka-python",
    "llama_cpp": "llama-cpp-python",
    "magic": "python-magic",
    "memcache": "python-memcached",
    "mpl_toolkits": "matplotlib",
    "multipart": "python-multipart",
    "nacl": "pynacl",
    "newspaper": "newspaper3k",
    "odf": "odfpy",
    "open_clip": "open-clip-torch",
    "opentelemetry": "opentelemetry-sdk",
    "paho": "paho-mqtt",
    "pkg_resources": "setuptools",
    "pptx": "python-pptx",
    "psycopg2": "psycopg2-binary",
    "pylab": "matplotlib",
    "pynvml": "nvidia-ml-py",
    "readability": "readability-lxml",
    "rest_framework": "djangorestframework",
    "rouge_score": "rouge-score",
    "serial": "pyserial",
    "skimage": "scikit-image",
    "sklearn": "scikit-learn",
    "slugify": "python-slugify",
    "snappy": "python-snappy",
    "socks": "PySocks",
    "speech_recognition": "SpeechRecognition",
    "surya": "surya-ocr",
    "symai": "symbolicai",
    "telegram": "python-telegram-bot",
    "umap": "umap-learn",
    "usb": "pyusb",
    "websocket": "websocket-client",
    "whisper": "openai-whisper",
    "win32api": "pywin32",
    "win32com": "pywin32",
    "wx": "wxPython",
    "yaml": "PyYAML",
    "z3": "z3-solver",
    "zmq": "pyzmq",
}
#: Modules of well-known distributions that are called like them: a file of a tree is not meant.
_SAME_NAME = frozenset(
    """
    PyPDF2 accelerate aiofiles aiohttp aiosqlite anthropic anyio asyncpg autoscraper base58 beartype
    boto3 cachetools cbor2 cdx_toolkit chardet chromadb cloudscraper cryptography cvc5 dag_cbor dash
    datasets docker duckdb easyocr elasticsearch fastapi feedparser flask graphviz html5lib httpx
    huggingface_hub hypercorn internetarchive ipfs_accelerate_py ipfs_datasets_py ipfs_kit_py
    ipfshttpclient ipld_car ipld_dag_pb ipwb jinja2 joblib jsonschema keyring kubernetes langchain
    langdetect libp2p librosa lightgbm llama_index lxml magika markitdown matplotlib moviepy msgpack
    multiaddr multiformats mutagen neo4j networkx nltk numba numpy openai openpyxl orjson pandas
    pdf2image pdfplumber playwright plotly prometheus_client psutil psycopg pyarrow pydantic pydub
    pymongo pymupdf pymysql pypdf pytesseract pytest qdrant_client rapidfuzz rdflib redis regex
    reportlab requests rich scipy seaborn selenium sentence_transformers sentencepiece soundfile
    spacy sqlalchemy starlette statsmodels sympy tiktoken tokenizers toml tomli torch torchvision
    tornado tqdm transformers trio urllib3 uvicorn warcio wayback weasyprint web3 websockets xgboost
    xlrd yt_dlp
    """.split()  # noqa: SIM905 - a list of a hundred words is read as text
)
#: Programs that a module starts, which pip does not install, and where Debian keeps them.
_PROGRAMS: Mapping[str, tuple[str, str]] = {
    "ffmpeg": ("ffmpeg", "ffmpeg"),
    "git": ("git", "git"),
    "graphviz": ("dot", "graphviz"),
    "moviepy": ("ffmpeg", "ffmpeg"),
    "pdf2image": ("pdftoppm", "poppler-utils"),
    "pydub": ("ffmpeg", "ffmpeg"),
    "pypandoc": ("pandoc", "pandoc"),
    "pytesseract": ("tesseract", "tesseract-ocr"),
    "whisper": ("ffmpeg", "ffmpeg"),
}
#: Parts of Python that some systems pack apart.
_APART: Mapping[str, str] = {
    "_tkinter": "python3-tk",
    "tkinter": "python3-tk",
    "turtle": "python3-tk",
}


def named(module: str) -> str:
    """Return how much of a dotted name tells which distribution is meant."""
    parts = module.split(".")
    for end in range(len(parts), 1, -1):
        name = ".".join(parts[:end])
        if name in _DISTRIBUTIONS:
            return name
    return parts[0]


def distribution_of(module: str) -> str:
    """Return the distribution that holds a module: the one of that name unless it is known to be
    another."""
    name = named(module)
    return _DISTRIBUTIONS.get(name, name)


def is_known(module: str) -> bool:
    """Whether a module's distribution is known, so that nothing else can be meant."""
    return named(module) in _DISTRIBUTIONS or module.partition(".")[0] in _SAME_NAME


def install_line(modules: Iterable[str]) -> str:
    """Return the command that installs what is missing; empty when pip installs none of it.

    :param modules: dotted names.
    """
    # Neither what Python brings with it, nor what lies in the tree.
    wanted = sorted(
        {distribution_of(name) for name in modules if name not in _APART}, key=str.lower
    )
    return f"pip install {' '.join(wanted)}" if wanted else ""


def program_of(module: str) -> tuple[str, str] | None:
    """Return the program that a module cannot work without, and the system package it is in."""
    return _PROGRAMS.get(module.partition(".")[0])


def system_package_of(module: str) -> str:
    """Return the system package with a module of Python that is packed apart, or nothing."""
    return _APART.get(module.partition(".")[0], "")
