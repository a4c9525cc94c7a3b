# Sourced: names CUDA's libraries that Python packages brought. Those that are opened are linked by their plain names too, which
# are looked for first: otherwise the system's would be taken, of any version.
links=$(mktemp -d)
trap 'rm -rf "$links"' EXIT
libraries=$(python3 - "$links" << 'END'
import glob, os, site, sys

roots = [*site.getsitepackages(), site.getusersitepackages()]
folders = sorted({os.path.dirname(path) for root in roots for path in glob.glob(f"{root}/nvidia/*/lib/*.so.*")})
for name, version in {"nvrtc": 13, "cublas": 13, "cudnn": 9}.items():
    found = [path for path in (f"{folder}/lib{name}.so.{version}" for folder in folders) if os.path.exists(path)]
    if found:
        os.symlink(found[0], f"{sys.argv[1]}/lib{name}.so")
print(":".join(folders))
END
)
export LD_LIBRARY_PATH="$links${libraries:+:$libraries}${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
