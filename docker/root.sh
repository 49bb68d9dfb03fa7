#!/bin/sh
# Removes from the base image what no role needs at run time: package tools, Perl, documents, caches. What the packages'
# licences ask to be kept (copyright) and the list of packages, which scanners read, stay.
set -eu
rm -rf /usr/share/perl* /usr/lib/*/perl* /usr/bin/perl* /usr/lib/*/libperl.so* \
  /usr/share/man /usr/share/info /usr/share/locale /usr/share/lintian /usr/share/bash-completion /usr/share/python-wheels \
  /usr/lib/apt /usr/bin/apt* /usr/lib/*/libapt-pkg.so* /var/lib/apt /var/cache/* /var/log/* /var/lib/dpkg/info \
  /usr/lib/*/gconv /usr/lib/python3*/ensurepip /usr/local/lib/python3*/ensurepip \
  /usr/lib/python3*/pydoc_data /usr/lib/python3*/lib2to3 /usr/lib/python3*/idlelib /usr/lib/python3*/test \
  /usr/local/lib/python3*/pydoc_data /usr/local/lib/python3*/lib2to3 /usr/local/lib/python3*/idlelib \
  /usr/local/lib/python3*/test /usr/local/include /usr/bin/pip* /usr/local/bin/pip*
for tool in pip setuptools wheel pkg_resources _distutils_hack; do
  rm -rf /usr/lib/python3/dist-packages/$tool* /usr/local/lib/python3*/site-packages/$tool*
done
find /usr/share/doc -type f ! -name copyright -delete
