"""The console's addresses: pages for people, at ``/``."""

import asyncio
from contextlib import suppress
from decimal import Decimal, InvalidOperation
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import JSONResponse, RedirectResponse, StreamingResponse

from fettle.errors import AuthenticationError, DataError, ForbiddenError
from fettle.service.core import Service
from fettle.service.faces.console import views
from fettle.service.faces.console.curves import panels
from fettle.service.faces.console.pages import HEADERS, Pages
from fettle.service.faces.console.visitors import Visitor, Visitors, check_same_site, text
from fettle.service.wire import address_of

DAY_S = 86_400
MOST_CHECKPOINTS = 200
MOST_USAGE_ROWS = 500
MOST_DIGITS = 18
"""Of a step that is asked for."""


def routes(service: Service) -> APIRouter:
    """Everything here."""
    pages = Pages(service.clock)
    router = APIRouter(route_class=pages.route_class(), include_in_schema=False)
    visitors = Visitors(service.doors)
    _add_door(router, service, pages, visitors)
    _add_runs(router, service, pages, visitors)
    _add_samples(router, service, pages, visitors)
    _add_checkpoints(router, service, visitors)
    _add_operation(router, service, pages, visitors)
    _add_keys(router, service, pages, visitors)
    return router


def _add_door(router: APIRouter, service: Service, pages: Pages, visitors: Visitors) -> None:
    @router.get("/sign-in")
    async def sign_in_page(request: Request, next: str = "/") -> Response:
        if service.doors.auth == "none":
            return RedirectResponse("/", 303)
        return pages.page("sign_in.html", None, wrong="", next=next)

    @router.post("/sign-in")
    async def sign_in(request: Request) -> Response:
        check_same_site(request)
        form = await request.form()
        asked = text(form, "next")
        here = asked.startswith("/") and not asked.startswith(("//", "/\\"))
        answer = RedirectResponse(asked if here else "/", 303, HEADERS)
        try:
            await visitors.sign_in(request, answer, text(form, "key"))
        except AuthenticationError as error:
            wrong = error.message.partition(":")[0]
            return pages.page("sign_in.html", None, status=401, wrong=f"That did not work: {wrong}.", next=asked)
        return answer

    @router.post("/sign-out")
    async def sign_out(request: Request) -> Response:
        await visitors.form(request)
        answer = RedirectResponse("/sign-in", 303, HEADERS)
        visitors.sign_out(request, answer)
        return answer

    @router.get("/static/{name}")
    async def file(name: str) -> Response:
        return pages.file(name)


def _add_runs(router: APIRouter, service: Service, pages: Pages, visitors: Visitors) -> None:
    Known = Annotated[Visitor, Depends(visitors.visitor)]

    @router.get("/")
    async def all_runs(request: Request, visitor: Known, q: str = "", state: str = "") -> Response:
        found = await views.runs(service, visitor.caller, q=q, state=state)
        asked = {"q": q, "state": state}
        return pages.page(
            "runs.html",
            visitor,
            here="Runs",
            address=address_of(request, service.settings.public_url),
            asked=asked,
            **found,
        )

    @router.get("/parts/runs")
    async def runs_part(request: Request, visitor: Known, q: str = "", state: str = "") -> Response:
        found = await views.runs(service, visitor.caller, q=q, state=state)
        return pages.part("_runs.html", visitor, address=address_of(request, service.settings.public_url), **found)

    @router.get("/runs/{run_id}")
    async def one_run(visitor: Known, run_id: str) -> Response:
        run = service.run(visitor.caller, run_id)
        kept, _ = await service.checkpoints(visitor.caller, run_id=run_id, limit=MOST_CHECKPOINTS, offset=0)
        found = await views.status(service, run)
        said: dict[str, Any] = {
            "moves": views.moves(run),
            "settings": views.settings_of(run),
            "checkpoints": kept,
        }
        return pages.page("run.html", visitor, here="Runs", **found, **said)

    @router.get("/parts/runs/{run_id}/status")
    async def status_part(visitor: Known, run_id: str) -> Response:
        return pages.part("_status.html", visitor, **await views.status(service, service.run(visitor.caller, run_id)))

    @router.get("/parts/runs/{run_id}/series")
    async def series(visitor: Known, run_id: str) -> Response:
        rows = await service.told.metrics(service.run(visitor.caller, run_id).id)
        return await asyncio.to_thread(lambda: JSONResponse(panels(rows), headers=HEADERS))

    @router.post("/runs/{run_id}/state")
    async def move(request: Request, run_id: str) -> Response:
        visitor, form = await visitors.form(request)
        wanted = next((state for state in views.STATES if state == text(form, "state")), None)
        if wanted is None:
            raise DataError(f"a run is {', '.join(views.STATES)}: choose one of them")
        await service.set_state(visitor.caller, run_id, wanted)
        return _back(f"/runs/{run_id}")


def _add_samples(router: APIRouter, service: Service, pages: Pages, visitors: Visitors) -> None:
    Known = Annotated[Visitor, Depends(visitors.visitor)]

    @router.get("/runs/{run_id}/samples")
    async def samples(request: Request, visitor: Known, run_id: str, step: str = "", least: str = "") -> Response:
        found = await _samples(service, visitor, run_id, step, least)
        asked = {"step": step, "least": least}
        return pages.page(
            "samples.html",
            visitor,
            here="Runs",
            address=address_of(request, service.settings.public_url),
            asked=asked,
            **found,
        )

    @router.get("/parts/runs/{run_id}/samples")
    async def samples_part(request: Request, visitor: Known, run_id: str, step: str = "", least: str = "") -> Response:
        found = await _samples(service, visitor, run_id, step, least)
        return pages.part("_samples.html", visitor, address=address_of(request, service.settings.public_url), **found)


async def _samples(service: Service, visitor: Visitor, run_id: str, step: str, least: str) -> dict[str, Any]:
    """What is asked for while it is being typed is no error yet."""
    run = service.run(visitor.caller, run_id)
    wanted = int(step) if step.isascii() and step.isdigit() and len(step) <= MOST_DIGITS else None
    reward = None
    with suppress(ValueError):
        reward = float(least)
    return await views.samples(service, run, step=wanted, least=reward)


def _add_checkpoints(router: APIRouter, service: Service, visitors: Visitors) -> None:
    Known = Annotated[Visitor, Depends(visitors.visitor)]

    @router.post("/runs/{run_id}/checkpoints")
    async def change(request: Request, run_id: str) -> Response:
        visitor, form = await visitors.form(request)
        caller, id, act = visitor.caller, text(form, "id"), text(form, "act")
        if act == "keep":
            days = _days(text(form, "days"))
            await service.set_ttl(caller, id, None if days is None else days * DAY_S)
        elif act in ("publish", "withdraw"):
            await service.publish(caller, id, act == "publish")
        elif act == "delete":
            await service.delete_checkpoint(caller, id)
        else:
            raise DataError("a checkpoint can be kept, published, withdrawn or deleted: choose one of them")
        return _back(f"/runs/{run_id}")

    @router.get("/checkpoints/{id:path}/download")
    async def download(visitor: Known, id: str) -> Response:
        entry = service.checkpoint(visitor.caller, id)
        name = "-".join(entry.id.split("/")).replace('"', "")
        headers = {**HEADERS, "Content-Disposition": f'attachment; filename="{name}.tar"'}
        return StreamingResponse(service.artifacts.archive(entry), headers=headers, media_type="application/x-tar")


def _add_operation(router: APIRouter, service: Service, pages: Pages, visitors: Visitors) -> None:
    Known = Annotated[Visitor, Depends(visitors.visitor)]

    @router.get("/queue")
    async def queue(visitor: Known) -> Response:
        return pages.page("queue.html", visitor, here="Queue", **await views.queue(service, visitor.caller))

    @router.get("/parts/queue")
    async def queue_part(visitor: Known) -> Response:
        return pages.part("_queue.html", visitor, **await views.queue(service, visitor.caller))

    @router.get("/usage")
    async def usage(visitor: Known) -> Response:
        await service.usage.flush()
        whose = None if visitor.caller.admin else visitor.caller.tenant
        rows = views.by_day(await service.usage.accounts.usage(tenant=whose))
        balances = []
        if service.usage.prices is not None:
            tenants = [tenant.id for tenant in await service.store.tenants()] if visitor.caller.admin else [whose]
            balances = [(tenant, f"{service.usage.balance(str(tenant)):,.2f}") for tenant in tenants]
        return pages.page("usage.html", visitor, here="Usage", rows=rows[:MOST_USAGE_ROWS], balances=balances)


def _add_keys(router: APIRouter, service: Service, pages: Pages, visitors: Visitors) -> None:
    async def page(visitor: Visitor, made: dict[str, str] | None = None) -> Response:
        keys = await service.keys.keys()
        return pages.page("keys.html", visitor, here="Keys", keys=keys, made=made, now=service.clock())

    def check_admin(visitor: Visitor) -> None:
        if not visitor.caller.admin:
            raise ForbiddenError("keys are made and revoked by admins: sign in with an admin's key")

    @router.get("/keys")
    async def keys(visitor: Annotated[Visitor, Depends(visitors.visitor)]) -> Response:
        check_admin(visitor)
        return await page(visitor)

    @router.post("/keys")
    async def make_key(request: Request) -> Response:
        visitor, form = await visitors.form(request)
        check_admin(visitor)
        key, secret = await service.keys.create(
            text(form, "tenant"),
            name=text(form, "name")[:200],
            admin=text(form, "admin") == "yes",
            days=_days(text(form, "days")),
            by=visitor.caller,
        )
        return await page(visitor, {"tenant": key.tenant, "secret": secret})

    @router.post("/keys/{key_id}/revoke")
    async def revoke_key(request: Request, key_id: str) -> Response:
        visitor, _ = await visitors.form(request)
        check_admin(visitor)
        await service.keys.revoke(key_id, by=visitor.caller)
        return _back("/keys")


def _days(given: str) -> float | None:
    """How many days; nothing said is for good.

    Raises:
        DataError: it is no number of days.
    """
    if not given:
        return None
    try:
        return float(Decimal(given))
    except InvalidOperation as error:
        raise DataError(f"{given[:40]!r} is no number of days: write 7 or 0.5, or nothing for good") from error


def _back(page: str) -> Response:
    """To a page that shows what was done; loading it again does nothing twice."""
    return RedirectResponse(page, 303, HEADERS)
