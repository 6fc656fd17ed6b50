"""Words that the guards know, in a few languages. A word that is missing costs a hit, or a veto; no more.

All are in lower case, as `str.casefold` makes them.
"""

from __future__ import annotations

from typing import Final


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


def _in_order(text: str) -> list[str]:
    return text.split()


_SMALL: Final = _in_order("""
    zero two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen
    sixteen seventeen eighteen nineteen twenty
    """)
NUMBER_WORDS: Final = {
    word: word
    for word in _words(
        """
    thirty forty fifty sixty seventy eighty ninety hundred thousand million billion trillion dozen
    half quarter twice double triple single both first second third fourth fifth sixth seventh
    eighth ninth tenth null zwei drei vier fünf sechs sieben acht neun zehn elf zwölf zwanzig
    hundert tausend halb doppelt erste zweite dritte deux trois quatre cinq sept huit neuf dix vingt
    cent mille moitié tres cuatro cinco seis siete ocho nueve diez veinte cien mitad tre quattro
    cinque sette otto nove dieci venti cento mezzo
    """
    )
} | {word: str(value + bool(value)) for value, word in enumerate(_SMALL)}
"""How a number is written in digits, or the word itself. "One" is left out: it stands for anything."""

DATES: Final = _words(
    """
    january february march april june july august september october november december jan feb mar
    apr jun jul aug sep sept oct nov dec monday tuesday wednesday thursday friday saturday sunday
    tue tues wed thu thur thurs fri today tomorrow yesterday tonight now currently recently later
    earlier next last previous past upcoming current morning noon afternoon evening night midnight
    day days daily week weeks weekly weekend month months monthly quarterly year years yearly annual
    century decade spring summer autumn fall winter christmas easter januar februar märz mai juni
    juli oktober dezember montag dienstag mittwoch donnerstag freitag samstag sonntag heute morgen
    gestern übermorgen vorgestern jetzt nächste nächsten nächstes letzte letzten letztes tag tage
    woche wochen monat monate jahr jahre abend nacht mittag sommer herbst frühling janvier février
    mars avril juin juillet août septembre octobre novembre décembre lundi mardi mercredi jeudi
    vendredi samedi dimanche demain hier maintenant prochain prochaine dernier dernière jour jours
    semaine semaines mois ans année années soir matin nuit enero febrero marzo abril mayo junio
    julio agosto septiembre octubre noviembre diciembre lunes martes miércoles jueves viernes sábado
    domingo hoy mañana ayer ahora próximo próxima último última día días semana semanas mes meses
    año años noche tarde
    """
)

UNITS: Final = _words(
    """
    mm cm dm m km nm in inch inches ft foot feet yd yard yards mi mile miles meter meters metre
    metres kilometer kilometers kilometre kilometres centimeter centimeters millimeter millimeters
    light-year g mg kg t lb lbs oz gram grams kilogram kilograms pound pounds ounce ounces ton tons
    tonne tonnes stone ml cl dl l gal liter liters litre litres gallon gallons pint pints cup cups
    tablespoon tablespoons teaspoon teaspoons tbsp tsp barrel barrels ms us ns s sec secs second
    seconds min mins minute minutes h hr hrs hour hours b kb mb gb tb pb kib mib gib tib bit bits
    byte bytes kilobyte kilobytes megabyte megabytes gigabyte gigabytes terabyte terabytes bps kbps
    mbps gbps hz khz mhz ghz rpm fps dpi px em rem pt w kw mw gw kwh wh v kv a ma ah mah ohm ohms
    watt watts volt volts amp amps j kj cal kcal joule joules calorie calories pa kpa bar psi atm
    mph kph kmh knots celsius fahrenheit kelvin degree degrees radian radians acre acres hectare
    hectares sqm sqft percent percentage dollar dollars cent cents euro euros eur usd gbp jpy cny
    inr chf cad aud yen yuan rupee rupees sterling quid bitcoin btc eth peso pesos meile meilen zoll
    fuß stunde stunden minuten sekunde sekunden pfund prozent grad heure heures seconde secondes
    livre livres pouce pouces pied pieds degrés pourcent hora horas minuto minutos segundo segundos
    milla millas metro metros kilómetros libra libras grado grados
    """
)

NEGATIONS: Final = _words(
    """
    no not non never none nobody nothing neither nor nowhere without cannot cant wont dont doesnt
    didnt isnt arent wasnt werent shouldnt wouldnt couldnt mustnt havent hasnt hadnt aint unless
    except excluding exclude excludes lacking lack lacks fail fails failed failing stop stops
    prevent prevents avoid avoids nicht nichts nie niemals kein keine keinen keinem keiner keines
    ohne weder außer niemand ne pas jamais rien aucun aucune sans ni personne sauf nunca nada ningún
    ninguna ninguno sin ni tampoco jamás excepto não nem sem nenhum nenhuma mai nessuno nessuna
    niente senza né niet geen nooit zonder ikke aldri ingen uten inte aldrig utan nie nigdy bez не
    нет ни никогда без ничего never 不 没 沒 無 无 非 別 别 未
    勿 ない なし ません ず 아니 안 못 없 لا ليس لم لن بدون غير
    नहीं न मत बिना
    """
)

# Words that turn a question around: the opposite of each is another question. A side that is said in any
# sentence (on, up, with, more) is left out: the other one, said or not said, tells the two apart.
OPPOSITES: Final = _words(
    """
    open opened opening close closed closing shut off enable enabled enabling disable disabled
    disabling allow allowed allows deny denied forbid forbidden block blocked blocking unblock
    unblocked accept accepted reject rejected approve approved decline declined include included
    excluded increase increased increasing decrease decreased decreasing rise rises fall falls raise
    raised lower lowered grow grows shrink shrinks down before after above below under beneath less
    least fewer fewest max min maximum minimum maximise minimise maximize minimize high higher
    highest low lowest large larger largest small smaller smallest big bigger biggest tiny tiniest
    long longer longest short shorter shortest fast faster fastest slow slower slowest hot hotter
    hottest cold colder coldest old older oldest new newer newest young younger youngest cheap
    cheaper cheapest expensive pricier priciest bad better worse best worst true false left right
    north south east west buy buying bought sell selling sold win won lose lost start starts end
    ends begin begins add added adding remove removed removing insert inserted delete deleted
    deleting create created creating destroy destroyed install installed installing uninstall
    uninstalled uninstalling lock locked locking unlock unlocked unlocking encrypt encrypted decrypt
    decrypted encode encoded decode decoded import imported importing export exported exporting
    upload uploaded uploading download downloaded downloading send sent sending receive received
    receiving push pull read reading write writing input output inside outside internal external
    public private legal illegal safe safely unsafe dangerous possible impossible valid invalid
    visible invisible hidden hide pass passed success failure successful unsuccessful dislike hate
    agree disagree ascending descending asc desc horizontal vertical male female men women man woman
    boy girl boys girls mother father parent child alive dead live die full empty deposit deposited
    withdraw withdrawn credit debit borrow lend freeze frozen unfreeze activate activated deactivate
    deactivated subscribe subscribed unsubscribe unsubscribed connect connected disconnect
    disconnected join leave follow unfollow mute muted unmute everything everyone depart departure
    departing arrive arrival arriving early earlier earliest late latest sync async synchronous
    asynchronous mutable immutable sorted unsorted required optional known unknown complete
    incomplete correct incorrect direct indirect equal unequal even odd positive negative able
    unable likely unlikely usual unusual healthy unhealthy fair unfair lucky unlucky available
    unavailable supported unsupported expected unexpected paid unpaid offen geschlossen öffnen
    schließen erlauben verbieten vor nach mehr weniger größer kleiner größte kleinste gut schlecht
    richtig falsch hoch niedrig aktivieren deaktivieren kaufen verkaufen ouvert fermé ouvrir fermer
    avant après moins meilleur pire vrai faux acheter vendre abierto cerrado abrir cerrar antes
    después menos mejor peor verdadero falso comprar vender
    """
)

# Said in any question, whatever it is about: they make no difference of substance.
FUNCTION_WORDS: Final = _words(
    """
    a an the and or but so if then than that these those there here it its it's itself i i'm i'd
    i've i'll me my mine myself we us our ours you your yours he him his she her hers they them
    their theirs one's who whom whose which what what's whats when where why how how's is isn't are
    am was were be been being do does did done doing have has had having can could would should will
    shall may might must of in for by with as at into onto about to please pls kindly just really
    very quite also too actually basically maybe perhaps ok okay hey hi hello thanks thank dear sir
    tell show give let get got explain describe say want need like know find see help want wanna
    gonna go going make makes ask asking wonder wondering question look looking able way exactly
    some any something anything der die das den dem des ein eine einen einem einer und oder aber ist
    sind war was wie wo wer wann warum welche welcher welches ich mir mich mein meine du dir dich
    dein deine wir uns unser sie ihr es zu zum zur in im am auf für mit von vom bei bitte kannst
    kann können würde sag zeig gib erkläre le la les l un une des du de d et ou est sont était que
    quoi qui quel quelle quels quelles quand où comment pourquoi je j me m moi mon ma mes tu te t
    toi ton ta tes il elle nous vous ce cet cette ça à au aux en dans pour par sur s peux peut
    pouvez dis montre donne explique merci el los las una unos unas y o es son era qué quién cuál
    cuáles cuándo dónde cómo por yo mi mis tú tu tus él ella nosotros usted se al del para que puedo
    puedes puede dime muestra dame explica favor gracias
    """
)
