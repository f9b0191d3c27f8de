"""Names of Python modules that programs commonly import, and the distributions they come in.

Kept by hand: the modules that a reader of Python programs meets, not a registry's list. It answers one question, "is
this a name people know?"; a name that is missing here is called unknown, never harmful.
"""

from __future__ import annotations

__all__ = ["DISTRIBUTION_OF", "KNOWN_MODULES", "distribution_of"]

DISTRIBUTION_OF = {
    "Crypto": "pycryptodome", "Cryptodome": "pycryptodomex", "Levenshtein": "levenshtein", "MySQLdb": "mysqlclient",
    "OpenSSL": "pyopenssl", "PIL": "pillow", "PyQt5": "pyqt5", "PyQt6": "pyqt6", "Xlib": "python-xlib",
    "attr": "attrs", "attrs": "attrs", "bs4": "beautifulsoup4", "cairo": "pycairo", "cpuinfo": "py-cpuinfo",
    "cv2": "opencv-python", "dateutil": "python-dateutil", "discord": "discord.py", "docx": "python-docx",
    "dotenv": "python-dotenv", "faiss": "faiss-cpu", "fitz": "pymupdf", "flask_cors": "flask-cors",
    "flask_login": "flask-login", "flask_mail": "flask-mail", "flask_restful": "flask-restful",
    "flask_sqlalchemy": "flask-sqlalchemy", "flask_wtf": "flask-wtf", "fuzzywuzzy": "fuzzywuzzy",
    "geopandas": "geopandas", "gi": "pygobject", "git": "gitpython", "github": "pygithub", "google": "google-api-core",
    "googleapiclient": "google-api-python-client", "gridfs": "pymongo", "igraph": "python-igraph", "jose":
    "python-jose", "jwt": "pyjwt", "kafka": "kafka-python", "ldap": "python-ldap", "magic": "python-magic",
    "markdown": "markdown", "mpl_toolkits": "matplotlib", "multipart": "python-multipart", "mysql":
    "mysql-connector-python", "nacl": "pynacl", "nmap": "python-nmap", "odf": "odfpy", "pcapy": "pcapy-ng",
    "pkg_resources": "setuptools", "pptx": "python-pptx", "psycopg2": "psycopg2-binary", "pylab": "matplotlib",
    "pynput": "pynput", "pythoncom": "pywin32", "pywintypes": "pywin32", "rapidjson": "python-rapidjson",
    "rest_framework": "djangorestframework", "ruamel": "ruamel.yaml", "scapy": "scapy", "serial": "pyserial",
    "skimage": "scikit-image", "sklearn": "scikit-learn", "slugify": "python-slugify", "socks": "pysocks",
    "speech_recognition": "speechrecognition", "sqlalchemy": "sqlalchemy", "telegram": "python-telegram-bot",
    "tlz": "toolz", "umap": "umap-learn", "usb": "pyusb", "websocket": "websocket-client", "win32api": "pywin32",
    "win32com": "pywin32", "win32con": "pywin32", "wordcloud": "wordcloud", "wx": "wxpython", "yaml": "pyyaml",
    "zmq": "pyzmq",
}  # fmt: skip
"""Import name to distribution name, where they differ (and a few where they do not)."""

_SAME_NAME = """
absl accelerate aiofiles aiohttp albumentations alembic altair anthropic anyio apscheduler argcomplete arrow asgiref
asyncpg asyncssh autograd backoff bcrypt beartype black bleach blinker bokeh boto3 botocore bottle brotli cachetools
cattrs catboost celery certifi cffi chardet charset_normalizer chromadb click cloudpickle colorama coloredlogs
colorlog construct coverage cryptography cupy curl_cffi cvxpy cycler cython dash dask databases datasets dbt deap
decorator deepdiff dill diskcache distributed django dns docker docopt docutils duckdb einops elasticsearch
email_validator emoji environ evaluate execnet fabric faker falcon fastapi fastavro feedparser filelock fire flair
flake8 flask flax folium fonttools freezegun frozendict fsspec ftfy future gensim geopy gevent gpiozero gradio
graphene graphviz greenlet grpc gspread gunicorn gym gymnasium h11 h2 h5py httpcore httplib2 httptools httpx
huggingface_hub humanize hydra hypothesis idna imageio imblearn imgaug importlib_metadata importlib_resources inflect
inflection invoke ipaddress ipykernel ipython ipywidgets isodate isort itsdangerous jax jaxlib jedi jinja2 jmespath
joblib jsonlines jsonpatch jsonpickle jsonpointer jsonschema jupyter keras keyring kivy kiwisolver kombu kornia
langchain langdetect lazy_loader librosa lightgbm lightning llvmlite loguru lxml lz4 mako markdown_it markupsafe
marshmallow matplotlib mistune mlflow mock mongoengine more_itertools motor moviepy mpmath msgpack msgspec multidict
mypy nbformat netaddr netifaces networkx nibabel nltk nose notebook numba numexpr numpy oauthlib onnx onnxruntime
openai opencv openpyxl opentelemetry optax optuna orjson packaging paho pandas paramiko parse parsel passlib patsy
peewee pendulum pexpect pickleshare pika pint pip platformdirs playwright plotly pluggy polars pooch prettytable
prometheus_client prompt_toolkit prophet psutil psycopg pulp py pyarrow pyasn1 pyautogui pybind11 pyaudio pycparser
pycurl pydantic pydantic_settings pydot pydub pyee pyfiglet pygame pygments pylint pymongo pymysql pymc pynvml pyodbc
pypdf PyPDF2 pyparsing pyperclip pyproj pyqtgraph pyro pysnmp pytest pytesseract python_multipart pytz pyttsx3
pyximport qrcode quart rapidfuzz ray redis regex reportlab requests requests_html requests_mock requests_oauthlib
requests_toolbelt responses retry retrying rich rope rpds rsa sanic schedule scipy scrapy seaborn selenium semver
sentence_transformers sentencepiece sentry_sdk setuptools shap shapely shellingham simplejson simpy six sniffio
snowflake sortedcontainers soupsieve spacy sphinx sqlmodel sqlparse starlette statsmodels stripe structlog sympy
tables tabulate tenacity tensorboard tensorflow tensorflow_datasets termcolor texttable textblob textdistance tiktoken
timm tokenizers toml tomli tomlkit toolz torch torchaudio torchtext torchvision tornado tox tqdm traitlets
transformers trimesh trio tweepy twilio twisted typeguard typer typing_extensions tzdata tzlocal ujson unidecode
urllib3 uvicorn uvloop validators vcr virtualenv wandb watchdog watchfiles wcwidth webcolors webdriver_manager
websockets werkzeug wheel wikipedia wrapt wtforms xarray xgboost xlrd xlsxwriter xlwt xmltodict xxhash yarl yfinance
youtube_dl yt_dlp zipp zstandard geopandas holidays wikipediaapi pyquery mechanize cssselect lightfm surprise implicit
hdbscan pyspark findspark mne obspy astropy sunpy Bio rdkit openmm pyvista vtk mayavi napari control casadi gekko
ortools cplex gurobipy pyomo pymoo bayes_opt hyperopt skopt tpot pycaret fbprophet sktime tslearn stumpy pmdarima arch
lifelines linearmodels pingouin textstat vaderSentiment sacrebleu rouge_score nlpaug stanza pattern polyglot jieba
konlpy MeCab fugashi pypinyin opencc phonenumbers pycountry countryinfo babel ezdxf xlwings docxtpl pdfplumber camelot
tabula pdfminer weasyprint fpdf svgwrite cairosvg barcode pyzbar adlfs aenum aiobotocore aiodns aioredis aiosignal
aiosmtplib aiosqlite aiormq aio_pika alabaster amqp annotated_types ansible antlr4 appdirs appnope argon2 arviz
asn1crypto astor asttokens astroid asyncclick asyncstdlib atomicwrites audioread authlib autogen autoflake autopep8
aws_xray_sdk awscli awswrangler azure backcall backports baostock base58 bidict billiard binaryornot bitarray
bitstring blis boltons boto braceexpand branca build bz2file cachecontrol cached_property catalogue cerberus cfgv chex
circuitbreaker ciso8601 cleo clickhouse_connect clickhouse_driver cloudscraper cmaes cmake cmdstanpy cohere colorlover
colour comm confection confluent_kafka contextlib2 contourpy convertdate cookiecutter corner croniter crcmod crewai
cvxopt cymem cytoolz dacite dagster dataclasses_json dateparser ddt ddtrace debugpy defusedxml deltalake deprecated
deprecation diffusers dirtyjson distlib distro django_filters djangorestframework dnspython docstring_parser dotmap
dulwich ecdsa editables elastic_transport emcee enchant engineio entrypoints environs esptool eth_account eth_utils
etils exceptiongroup executing expiringdict fastcore fastjsonschema fastprogress fasttext fasteners ffmpeg fiona
flash_attn flasgger flask_admin flask_babel flask_bcrypt flask_caching flask_jwt_extended flask_limiter flask_migrate
flask_session flask_socketio flatbuffers flower formulaic frozenlist fs furl gast gcsfs gdown genson geographiclib
ghp_import gitdb google_auth_oauthlib googletrans gpt4all gql graphql grpc_tools grpcio haystack hiredis hjson hpack
html2text html5lib httpie humanfriendly hyperframe hyperlink icalendar icecream identify ijson imagehash imutils
incremental inquirer instructor interpret iso8601 isoduration jaraco jaydebeapi jdatetime jeepney jellyfish jira
joserfc josepy json5 json_repair jsonpath_ng jsonref jupyter_client jupyter_core jupyterlab kaggle keyboard kfp
kubernetes langchain_community langchain_core langchain_openai langgraph langsmith lark ldap3 libcst lime litellm
llama_cpp llama_index locust lockfile looker_sdk lupa mammoth mando markdown2 markdownify mashumaro matplotlib_inline
mccabe mdit_py_plugins mdurl measurement memory_profiler mergedeep minio mkdocs ml_dtypes mlxtend monai mongomock
monotonic moto mouse msal msrest mss multiprocess murmurhash mypy_extensions mysqlclient namex nameparser natsort
nest_asyncio netmiko neo4j newspaper ninja nox num2words numcodecs nvidia oauth2client objsize odfpy ollama omegaconf
onnxscript openapi_spec_validator opentracing opt_einsum oracledb orbax ormsgpack osmnx oss2 outcome overrides oyaml
paddle paddleocr pandas_datareader pandas_profiling pandera papermill parameterized param parso partd pathlib2 pathos
pathspec pbr peft pep517 persistent pgvector phik pillow_heif pinecone pipdeptree pipenv pkginfo plotnine ply poetry
portalocker portend pox ppft praw pre_commit preshed priority proglog progress progressbar propcache protobuf
psycopg_pool ptyprocess publicsuffix2 pure_eval pwntools py4j pyaes pyannote pyarrow_hotfix pyasn1_modules pybtex
pycocotools pycodestyle pycryptodome pydantic_core pydeck pydicom pydispatch pydocstyle pydotplus pydruid pyftpdlib
pyflakes pygit2 pygsheets pyhive pyinstaller pyjokes pylatexenc pymatgen pymilvus pymodbus pynacl pynndescent pyotp
pyphen pypandoc pyproject_hooks pyrsistent pyscreeze pysftp pysolr pyspellchecker pystray pytablewriter pytest_asyncio
pytest_cov pytest_mock pytimeparse pytorch_lightning pytube pyudev pyvis pywintypes pyvirtualdisplay qdrant_client
qtpy quantlib rarfile rasterio ratelimit readability readchar readme_renderer recommonmark redis_om rembg resampy
reretry rfc3339_validator rfc3986 rfc3987 rpy2 ruff runpod s3fs s3transfer sacremoses safetensors sagemaker schema
scikeras scikit_posthocs seleniumwire sendgrid service_identity setproctitle setuptools_scm sh shortuuid
simple_salesforce simple_parsing singer skorch slack_bolt slack_sdk slugify smart_open smbprotocol smmap snappy
snowballstemmer socketio sounddevice soundfile spacy_legacy sphinx_rtd_theme sqladmin sqlalchemy_utils sqlfluff
sqlglot srsly sse_starlette sshtunnel stack_data stevedore streamlit stringcase strawberry strictyaml superqt
svgpathtools swagger_ui symengine synapse tensorboardX tensorflow_addons tensorflow_hub tensorflow_probability
testcontainers testtools text_unidecode textual thefuzz thinc thop threadpoolctl thrift tifffile tinycss2 tinydb
tksheet together toposort torch_geometric torchmetrics torchsummary tree treelib trl trove_classifiers ttkbootstrap
turbojpeg twine typed_ast typer_cli typing_inspect tyro tzfpy ua_parser uc ultralytics unstructured uritemplate
usaddress user_agents uuid6 validator_collection vllm voluptuous waitress wasabi wasmtime weaviate web3
websocket_server webob whisper whitenoise whoosh wikipedia2vec win32gui winshell wmi wsproto xformers xlib xmlschema
xmlsec yacs yapf yaspin zarr zeep zict zope zxcvbn
""".split()  # noqa: SIM905 - a block of words reads better than a thousand quoted strings

KNOWN_MODULES: frozenset[str] = frozenset(_SAME_NAME).union(DISTRIBUTION_OF)
"""Top-level module names that are well known."""


def distribution_of(module: str) -> str:
    """The distribution that a top-level module usually comes from."""
    return DISTRIBUTION_OF.get(module, module.replace("_", "-").lower())
